"""Evaluated runs read back from MLflow as a report takes them: entries, trials, and what they have in common."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from muralab.errors import MuraLabError, RecipeError, SettingsError, StoreError, numbered
from muralab.evaluation.calibration import Calibration
from muralab.recipe_loader import load_recipe
from muralab.report import Context, Entry
from muralab.results.final_test import describe_machine
from muralab.tracking import (
    LoggedData,
    RunRecord,
    Store,
    download_artifact,
    fingerprint_test_set,
    read_children,
    read_datasets,
    read_run,
)
from muralab.tracking.tags import Tag, resolved_values_of

PARENTS = ("tune", "compare")
SETS = {"train": "training", "validation": "validation", "test": "test"}
COUNTS = ("studies", "patients", "images", "abnormal")
AUDIT_TABLE, AUDIT_TEXT = "audit.csv", "audit.md"


def select_runs(store: Store, ids: Sequence[str]) -> list[RunRecord]:
    """The evaluated runs that are meant by some ids; a sweep or a comparison stands for those under it.

    Raises:
        StoreError: an id is unknown, or runs hold no test predictions (names all of them).
        SettingsError: no id, or runs of different parts or test sets.
    """
    if not ids:
        raise SettingsError("runs= names no run: give run ids by comma, or the id of a sweep.")
    found: dict[str, RunRecord] = {}
    unjudged: list[str] = []
    for run_id in ids:
        record = read_run(store, run_id)
        own = read_children(store, run_id, predictions=True) if record.kind in PARENTS else [record]
        judged = [one for one in own if "test" in one.predictions]
        found |= {one.run_id: one for one in judged}
        if not judged:
            unjudged.append(f"{run_id} ({record.kind or 'not ours'}, {record.name}, {record.status.lower()})")
    if unjudged:
        raise StoreError(
            numbered(f"{len(unjudged)} of {len(ids)} runs hold no test predictions, so nothing can be shown:", unjudged)
            + "\nGive runs that met the test set: the best trial of each recipe of a sweep, a train or an evaluate run."
        )
    records = list(found.values())
    _check_tested(records)
    _check_alike("parts", {one.run_id: one.part for one in records})
    _check_alike("test sets", {one.run_id: fingerprint_test_set(one.predictions["test"]) for one in records})
    digests = {one.run_id: read_datasets(store, one.run_id).get("test") for one in records}
    _check_alike("test pictures", {run_id: data.digest for run_id, data in digests.items() if data is not None})
    return records


def _check_tested(records: Sequence[RunRecord]) -> None:
    """Refuse what `evaluate` judged on images that a model had learnt from: a report would call these figures test."""
    lines = []
    for one in records:
        name, known = one.tags.get(Tag.SET, "test"), one.tags.get(Tag.LEAKED_IMAGES, "0")
        if known != "0":
            lines.append(f"{one.run_id}: {name}, of which the model knows {known} images from its training")
        elif name in ("train", "validation"):
            lines.append(f"{one.run_id}: {name}")
    if lines:
        raise SettingsError(
            numbered("A report is of test studies, and these runs were judged on others (see `evaluate`):", lines)
        )


def _check_alike(what: str, values: Mapping[str, str]) -> None:
    counts = Counter(values.values())
    if len(counts) > 1:
        lines = [f"{value}: {', '.join(run for run, own in values.items() if own == value)}" for value in counts]
        raise SettingsError(
            numbered(f"The runs are of {len(counts)} different {what}, and figures of these do not compare:", lines)
            + "\nWrite one report for each."
        )


def read_entries(store: Store, records: Sequence[RunRecord]) -> list[Entry]:
    """Evaluated runs as entries; runs of one recipe are told apart by what their names add to it, or by their ids."""
    words = {one.run_id: one.name.replace(one.recipe, "").strip("-_ ") for one in records}
    counts = Counter((one.recipe, words[one.run_id]) for one in records)
    repeated = {recipe for recipe, n in Counter(one.recipe for one in records).items() if n > 1}
    marks = {
        one.run_id: words[one.run_id] if counts[one.recipe, words[one.run_id]] == 1 else one.run_id[:6]
        for one in records
        if one.recipe in repeated
    }
    return [read_entry(store, one, mark=marks.get(one.run_id, "")) for one in records]


def read_entry(store: Store, record: RunRecord, *, mark: str = "") -> Entry:
    """One evaluated run as an entry.

    Args:
        store: where it is.
        record: the run, with its history.
        mark: what its title adds to the recipe's.
    """
    title, from_scratch = _of_recipe(record.recipe)
    history = record.history
    return Entry(
        name=record.recipe or record.name,
        title=f"{title} ({mark})" if mark else title,
        run_id=record.run_id,
        resolved=resolved_values_of(record.params),
        history=history.dropna(subset=["train_loss"]) if "train_loss" in history else pd.DataFrame(),
        summary=record.metrics,
        from_scratch=from_scratch,
        validation=_table(record, "validation"),
        test=record.predictions["test"],
        calibration=read_calibration(store, record.run_id),
        objective=_objective(store, record),
    )


def _objective(store: Store, record: RunRecord) -> float:
    """What a run, or the one that it judged again, reached on validation; NaN where neither is known."""
    source = record.tags.get(Tag.EVALUATES)
    if "objective" not in record.metrics and source:
        try:
            return _objective(store, read_run(store, source, predictions=False))
        except StoreError:  # deleted since
            return float("nan")
    return record.metrics.get("objective", float("nan"))


def _table(record: RunRecord, name: str) -> pd.DataFrame | None:
    held = record.predictions
    return held[name] if name in held else None  # noqa: SIM401 - a missing one is a StoreError, not a KeyError


def _of_recipe(name: str) -> tuple[str, bool]:
    try:
        recipe = load_recipe(name)
    except RecipeError:  # of another checkout; its run is whole without it
        return name, False
    return recipe.summary, not recipe.pretrained


def read_calibration(store: Store, run_id: str) -> Calibration | None:
    """What was fitted on a run's validation studies; None where the run holds nothing of it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = download_artifact(store, run_id, "calibration.json", Path(folder))
        except StoreError:
            return None
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))


def read_context(store: Store, records: Sequence[RunRecord]) -> Context:
    """What some evaluated runs have in common; where they differ, all values by slash."""
    first = records[0]
    data = read_datasets(store, first.run_id)
    compared = _comparison(store, records)
    stated = "" if compared is None else compared.tags.get(Tag.COMPARISON, "")
    synthetic = first.tags.get(Tag.SYNTHETIC) == "true"
    seeds = _values(records, Tag.SEED)
    return Context(
        title=f"MURA Lab: {first.part}, {len(records)} run{'s' * (len(records) > 1)}",
        part=first.part,
        data="demo" if synthetic else data["test"].source if "test" in data else "not recorded",
        synthetic=synthetic,
        protocol=" / ".join(_values(records, Tag.PROTOCOL)) or "not recorded",
        seed=int(seeds[0]) if seeds else 0,
        image_size=" / ".join(_unique(resolved_values_of(one.params).get("image_size", "") for one in records))
        or "not recorded",
        weights=" / ".join(_values(records, Tag.WEIGHTS)) or "not recorded",
        split_counts=read_counts(data),
        fingerprint=" / ".join(_values(records, Tag.SPLIT_FINGERPRINT)) or "not recorded",
        unreadable=None,
        commit=" / ".join(_values(records, Tag.GIT_COMMIT)),
        created=datetime.now(UTC),
        machine=describe_machine(False),
        objective=next(iter(_values(records, Tag.OBJECTIVE)), "val_study_auroc"),
        audit=read_audit(store, first),
        statements=[stated] if stated else (),
        comparison=compared is not None,
    )


def _comparison(store: Store, records: Sequence[RunRecord]) -> RunRecord | None:
    """The comparison that all of these runs are of, or None."""
    parents = {one.parent for one in records}
    if len(parents) != 1 or None in parents:
        return None
    parent = read_run(store, str(*parents), predictions=False)
    return parent if parent.kind == "compare" else None


def _values(records: Iterable[RunRecord], tag: str) -> list[str]:
    return _unique(one.tags.get(tag, "") for one in records)


def _unique(values: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]


def read_counts(data: Mapping[str, LoggedData]) -> pd.DataFrame:
    """The sets' sizes as they were logged with a run."""
    rows = [
        {"set": name, **{key: data[context].profile.get(key, 0) for key in COUNTS}}
        for name, context in SETS.items()
        if context in data
    ]
    return pd.DataFrame(rows, columns=["set", *COUNTS])


def read_audit(store: Store, record: RunRecord) -> tuple[str, pd.DataFrame] | None:
    """The audit that was logged with a run, or with the sweep above it; None where there is none."""
    for run_id in (record.run_id, record.parent):
        with tempfile.TemporaryDirectory() as folder:
            try:
                text = download_artifact(store, run_id or "", AUDIT_TEXT, Path(folder)).read_text(encoding="utf-8")
                table = pd.read_csv(download_artifact(store, run_id or "", AUDIT_TABLE, Path(folder)))
            except (MuraLabError, pd.errors.EmptyDataError):
                continue
            return text, table
    return None
