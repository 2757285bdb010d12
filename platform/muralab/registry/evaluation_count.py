"""How many evaluations a test set has seen, kept as tags of the registered model: deleting runs cannot lower the count.

Each evaluation on a test set is a run with that set's fingerprint. The registered model remembers which of them it has
counted, by the first characters of their ids, so that runs deleted since stay counted and no run counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muralab.registry.registry_lock import registry_lock
from muralab.tracking import Store, find_evaluations
from muralab.tracking.failures import store_errors
from muralab.tracking.tags import Tag

ID_CHARACTERS = 12
IDS_PER_TAG = 350
"""So that a tag stays below 5,000 characters."""


def count_test_evaluations(store: Store, name: str, fingerprint: str) -> int:
    """How many evaluations a test set has seen, for a registered model or one that does not exist yet.

    Args:
        store: holds the runs and the model.
        name: of the registered model.
        fingerprint: of the test set, see `fingerprint_test_set`.

    Raises:
        StoreError: the store failed.
    """
    count, counted = _read_count(_tags_of(store, name) or {}, fingerprint)
    return max(count, len(counted | _run_ids(store, fingerprint)))


def record_evaluations(store: Store, name: str, fingerprint: str) -> int:
    """Count the evaluations on a test set, and store the count with the registered model if that exists.

    Args:
        store: holds the runs and the model.
        name: of the registered model.
        fingerprint: of the test set.

    Raises:
        StoreError: the store failed.
    """
    present, tags = _run_ids(store, fingerprint), _tags_of(store, name)
    if tags is None:
        return len(present)
    count, counted = _read_count(tags, fingerprint)
    if present <= counted and count >= len(counted):
        return count
    with (
        store_errors(store, f"count the evaluations with the registered model {name}"),
        registry_lock(store, name),  # other machines count as well
    ):
        return _write_count(store.client, name, fingerprint, present, _tags_of(store, name) or {})


def _write_count(client: Any, name: str, fingerprint: str, present: set[str], tags: Mapping[str, str]) -> int:
    """Add runs to those that the tags of a registered model count; returns the new count."""
    count, counted = _read_count(tags, fingerprint)
    new = sorted(present - counted)
    total = max(count, len(counted) + len(new))
    if new:
        n_lists = sum(key.startswith(f"{Tag.COUNTED_RUNS}{fingerprint}.") for key in tags)
        last = max(n_lists - 1, 0)
        ids = [*tags.get(f"{Tag.COUNTED_RUNS}{fingerprint}.{last}", "").split(), *new]
        for first in range(0, len(ids), IDS_PER_TAG):
            key = f"{Tag.COUNTED_RUNS}{fingerprint}.{last + first // IDS_PER_TAG}"
            client.set_registered_model_tag(name, key, " ".join(ids[first : first + IDS_PER_TAG]))
    if total > count:
        client.set_registered_model_tag(name, f"{Tag.COUNTED_EVALUATIONS}{fingerprint}", str(total))
    return total


def _run_ids(store: Store, fingerprint: str) -> set[str]:
    """The runs in the store that were evaluated on a test set, by the start of their ids."""
    return {run_id[:ID_CHARACTERS] for run_id in find_evaluations(store, fingerprint)}


def _tags_of(store: Store, name: str) -> dict[str, str] | None:
    with store_errors(store, f"read the registered model {name}"):
        found = store.client.search_registered_models(f"name='{name}'")
    return dict(found[0].tags) if found else None


def _read_count(tags: Mapping[str, str], fingerprint: str) -> tuple[int, set[str]]:
    """The stored count, and the runs that it counts."""
    lists = [value for key, value in tags.items() if key.startswith(f"{Tag.COUNTED_RUNS}{fingerprint}.")]
    count = tags.get(f"{Tag.COUNTED_EVALUATIONS}{fingerprint}", "0")
    return int(count), {run_id for one in lists for run_id in one.split()}
