"""How many evaluations a test set has seen, kept as tags of the registered model: deleting runs cannot lower the count.

Each evaluation on a test set is a run with that set's fingerprint and a sketch of its patients. Sets with mostly the
same patients count as one: dropping duplicates or correcting a label starts no new count. The registered model keeps
the runs that it has counted, by the first characters of their ids, so that runs deleted since stay counted and none
counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muralab.registry.registry_lock import registry_lock
from muralab.tracking import Store, find_evaluations
from muralab.tracking.failures import store_errors
from muralab.tracking.patient_sketch import is_mostly_the_same
from muralab.tracking.tags import Tag

ID_CHARACTERS = 12
IDS_PER_TAG = 350
"""So that a tag stays below 5,000 characters."""


@dataclass(frozen=True, kw_only=True)
class _TestSet:
    """A test set, and the evaluations on it that the store holds."""

    fingerprint: str
    patients: str
    """Their sketch; empty if none is known."""
    present: set[str]
    """Starts of the ids of runs that were evaluated on it, or on a set with mostly the same patients."""


def count_test_evaluations(store: Store, name: str, fingerprint: str) -> int:
    """How many evaluations a test set has seen, for a registered model or one that does not exist yet.

    Args:
        store: holds the runs and the model.
        name: of the registered model.
        fingerprint: of the test set, see `fingerprint_test_set`.

    Raises:
        StoreError: the store failed.
    """
    tags = _tags_of(store, name) or {}
    test_set = _find_test_set(store, fingerprint, tags)
    count, counted = _read_count(tags, test_set)
    return max(count, len(counted | test_set.present))


def record_evaluations(store: Store, name: str, fingerprint: str) -> int:
    """Count the evaluations on a test set, and store the count with the registered model if that exists.

    Args:
        store: holds the runs and the model.
        name: of the registered model.
        fingerprint: of the test set.

    Raises:
        StoreError: the store failed.
    """
    tags = _tags_of(store, name)
    test_set = _find_test_set(store, fingerprint, tags or {})
    if tags is None:
        return len(test_set.present)
    count, counted = _read_count(tags, test_set)
    if test_set.present <= _counted_on(tags, fingerprint) and count >= len(counted):
        return count
    with (
        store_errors(store, f"count the evaluations with the registered model {name}"),
        registry_lock(store, name),  # other machines count as well
    ):
        return _write_count(store.client, name, test_set, _tags_of(store, name) or {})


def _write_count(client: Any, name: str, test_set: _TestSet, tags: Mapping[str, str]) -> int:
    """Add runs to those that the tags of a registered model count; returns the new count."""
    fingerprint = test_set.fingerprint
    count, counted = _read_count(tags, test_set)
    total = max(count, len(counted | test_set.present))
    new = sorted(test_set.present - _counted_on(tags, fingerprint))
    if new:
        n_lists = sum(key.startswith(f"{Tag.COUNTED_RUNS}{fingerprint}.") for key in tags)
        last = max(n_lists - 1, 0)
        ids = [*tags.get(f"{Tag.COUNTED_RUNS}{fingerprint}.{last}", "").split(), *new]
        for first in range(0, len(ids), IDS_PER_TAG):
            key = f"{Tag.COUNTED_RUNS}{fingerprint}.{last + first // IDS_PER_TAG}"
            client.set_registered_model_tag(name, key, " ".join(ids[first : first + IDS_PER_TAG]))
    values = {
        f"{Tag.COUNTED_PATIENTS}{fingerprint}": test_set.patients,
        f"{Tag.COUNTED_EVALUATIONS}{fingerprint}": str(total),
    }
    for key, value in values.items():
        if value and tags.get(key) != value:
            client.set_registered_model_tag(name, key, value)
    return total


def _find_test_set(store: Store, fingerprint: str, tags: Mapping[str, str]) -> _TestSet:
    """A test set with the runs in the store that were evaluated on it."""
    found = find_evaluations(store, fingerprint, tags.get(f"{Tag.COUNTED_PATIENTS}{fingerprint}", ""))
    present = {run_id[:ID_CHARACTERS] for run_id in found.run_ids}
    return _TestSet(fingerprint=fingerprint, patients=found.patients, present=present)


def _tags_of(store: Store, name: str) -> dict[str, str] | None:
    with store_errors(store, f"read the registered model {name}"):
        found = store.client.search_registered_models(f"name='{name}'")
    return dict(found[0].tags) if found else None


def _read_count(tags: Mapping[str, str], test_set: _TestSet) -> tuple[int, set[str]]:
    """The stored count of a test set or of one with mostly the same patients, and all runs that were counted there."""
    sketches = {
        key.removeprefix(Tag.COUNTED_PATIENTS): value
        for key, value in tags.items()
        if key.startswith(Tag.COUNTED_PATIENTS)
    }
    alike = {one for one, sketch in sketches.items() if is_mostly_the_same(sketch, test_set.patients)}
    alike.add(test_set.fingerprint)
    counts = [int(tags.get(f"{Tag.COUNTED_EVALUATIONS}{one}", "0")) for one in alike]
    return max(counts), set().union(*(_counted_on(tags, one) for one in alike))


def _counted_on(tags: Mapping[str, str], fingerprint: str) -> set[str]:
    """The runs that are counted under a fingerprint."""
    lists = [value for key, value in tags.items() if key.startswith(f"{Tag.COUNTED_RUNS}{fingerprint}.")]
    return {run_id for one in lists for run_id in one.split()}
