"""Evaluated models read back from MLflow runs, and what a report says about the runs they come from."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from muralab.errors import (
    MuraLabError,
    RecipeError,
    SettingsError,
    StoreError,
    StoreUnavailableError,
    numbered,
)
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel, TrainingRecord
from muralab.evaluation.intervals import INTERVAL_METHOD
from muralab.recipe_loader import load_recipe
from muralab.report.context import Context, SearchTrial
from muralab.report.shown_trials import shown_trials
from muralab.report.training_plots import phase_boundary
from muralab.results.checks import read_checks, read_groups
from muralab.results.context import describe_machine
from muralab.results.run_recipe import is_present, read_run_recipe
from muralab.tracking import (
    LoggedData,
    RunRecord,
    Store,
    download_artifact,
    read_children,
    read_datasets,
    read_run,
    with_histories,
)
from muralab.tracking.platform_version import describe_commit
from muralab.tracking.tags import Tag

PARENT_KINDS = ("tune", "compare")
"""Kinds of runs that stand for the evaluated runs below them."""
CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}
"""Set -> the context under which a run logs it as an input."""
COUNTS = ("studies", "patients", "images", "abnormal")
AUDIT_TABLE, AUDIT_TEXT = "audit.csv", "audit.md"


def select_runs(store: Store, ids: Sequence[str]) -> list[RunRecord]:
    """The evaluated runs that some ids name; a sweep or a comparison stands for those under it.

    Raises:
        StoreError: an id is unknown, or runs hold no test predictions (names all of them).
        SettingsError: no id, or runs of different parts or test sets.
    """
    if not ids:
        raise SettingsError("runs= names no run: give comma-separated run ids, or the id of a sweep.")
    found: dict[str, RunRecord] = {}
    untested: list[str] = []
    for run_id in ids:
        record = read_run(store, run_id)
        is_parent = record.kind in PARENT_KINDS
        own = read_children(store, run_id, predictions=True, history=False) if is_parent else [record]
        tested = [one for one in own if "test" in one.predictions and not _is_superseded(one, record)]
        found |= {one.run_id: read_run(store, one.run_id) if is_parent else one for one in tested}
        if not tested:
            untested.append(f"{run_id} ({record.kind or 'not ours'}, {record.name}, {record.status.lower()})")
    if untested:
        raise StoreError(
            numbered(
                f"{len(untested)} of {len(ids)} runs hold no test predictions, so there is nothing to show:", untested
            )
            + "\nGive runs that were evaluated on the test set: the best trial of each recipe of a sweep, or a run of "
            "train or evaluate."
        )
    records = list(found.values())
    _check_alike("parts", {one.run_id: one.part for one in records})
    _check_alike("test sets", {one.run_id: one.test_fingerprint for one in records})
    digests = {one.run_id: read_datasets(store, one.run_id).get("test") for one in records}
    _check_alike("test images", {run_id: data.digest for run_id, data in digests.items() if data is not None})
    return records


def _is_superseded(trial: RunRecord, parent: RunRecord) -> bool:
    """Whether a sweep that was extended has found a better trial of the same recipe."""
    return parent.kind == "tune" and trial.tags.get(Tag.BEST_OF_RECIPE) == "false"


def _check_alike(what: str, values: Mapping[str, str]) -> None:
    counts = Counter(values.values())
    if len(counts) > 1:
        lines = [f"{value}: {', '.join(run for run, own in values.items() if own == value)}" for value in counts]
        raise SettingsError(
            numbered(f"The runs have {len(counts)} different {what}, whose figures cannot be compared:", lines)
            + "\nWrite one report for each."
        )


def read_models(store: Store, records: Sequence[RunRecord]) -> list[EvaluatedModel]:
    """Evaluated runs as models; runs of one recipe are distinguished by what their names add to it, or by their ids."""
    added = {one.run_id: one.short_name.replace(one.recipe, "").strip("-_ ") for one in records}
    counts = Counter((one.recipe, added[one.run_id]) for one in records)
    repeated = {recipe for recipe, n in Counter(one.recipe for one in records).items() if n > 1}
    suffixes = {
        one.run_id: added[one.run_id] if counts[one.recipe, added[one.run_id]] == 1 else one.run_id[:6]
        for one in records
        if one.recipe in repeated
    }
    return [read_model(store, one, suffix=suffixes.get(one.run_id, "")) for one in records]


def read_model(store: Store, record: RunRecord, *, suffix: str = "") -> EvaluatedModel:
    """One evaluated run as a model.

    Args:
        store: where it is.
        record: the run, with its history.
        suffix: what its title adds to the recipe's.
    """
    title, from_scratch = _recipe_facts(store, record)
    history, held = record.history, record.predictions
    return EvaluatedModel(
        recipe=record.recipe or record.name,
        title=f"{title} ({suffix})" if suffix else title,
        run_id=record.run_id,
        validation=held["validation"] if "validation" in held else None,  # noqa: SIM401 - a missing one raises
        test=held["test"] if "test" in held else None,  # noqa: SIM401
        calibration=read_calibration(store, record.run_id),
        objective=_objective(store, record),
        training=TrainingRecord(
            values=record.values,
            history=history.dropna(subset=["train_loss"]) if "train_loss" in history else pd.DataFrame(),
            summary=record.metrics,
            kept_phase=record.tags.get(Tag.KEPT_PHASE, ""),
            from_scratch=from_scratch,
        ),
    )


def _recipe_facts(store: Store, record: RunRecord) -> tuple[str, bool]:
    """(title, whether it trains from scratch)."""
    try:
        recipe = load_recipe(record.recipe) if is_present(record) else read_run_recipe(store, record).recipe
    except RecipeError:  # of another checkout; its run is complete without it
        return record.recipe, False
    return recipe.summary, not recipe.pretrained


def _objective(store: Store, record: RunRecord) -> float:
    """What a run, or the one whose model it evaluated, reached on validation; NaN where neither is known."""
    source = record.tags.get(Tag.EVALUATES)
    if "objective" not in record.metrics and source:
        try:
            return _objective(store, read_run(store, source, predictions=False))
        except StoreUnavailableError:
            raise
        except StoreError:  # deleted since
            return float("nan")
    return record.metrics.get("objective", float("nan"))


def read_calibration(store: Store, run_id: str) -> Calibration | None:
    """What was fitted on a run's validation studies; None where the run holds nothing of it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = download_artifact(store, run_id, "calibration.json", Path(folder))
        except StoreUnavailableError:
            raise
        except StoreError:
            return None
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))


def read_trials(store: Store, records: Sequence[RunRecord]) -> list[SearchTrial]:
    """Every trial of a search, with the curves of those that the report shows.

    Args:
        store: where they are.
        records: of the trials, without their histories.

    Raises:
        StoreError: the store failed.
    """
    trials = build_trials(records)
    shown = {trial.run_id for trial in shown_trials(trials)}
    metrics = {"phase", "train_loss", *(_objective_name(one, one.metrics) for one in records)}
    found = with_histories(store, [one for one in records if one.run_id in shown], metrics)
    curves = {trial.run_id: trial for trial in build_trials(found)}
    return [curves.get(trial.run_id, trial) for trial in trials]


def build_trials(records: Iterable[RunRecord]) -> list[SearchTrial]:
    """Every trial of a search as the report shows it, tested or not."""
    return [
        SearchTrial(
            recipe=record.recipe,
            name=record.short_name,
            run_id=record.run_id,
            status=record.tags.get(Tag.ENDED, record.status.lower()),
            epochs=int(record.history["train_loss"].notna().sum()) if "train_loss" in record.history else 0,
            objective=record.metrics.get("objective", float("nan")),
            values=_searched_values(record),
            curve=_objective_curve(record),
            boundary=phase_boundary(record.history),
        )
        for record in records
    ]


def _objective_curve(record: RunRecord) -> pd.Series:
    """The objective after each epoch; runs of earlier versions hold it under its metric's own name alone."""
    name = _objective_name(record, record.history)
    return record.history[name].dropna() if name in record.history else pd.Series(dtype=float)


def _objective_name(record: RunRecord, logged: Collection[str]) -> str:
    return "epoch_objective" if "epoch_objective" in logged else record.tags.get(Tag.OBJECTIVE, "val_study_auroc")


def _searched_values(record: RunRecord) -> dict[str, float | str]:
    if record.searched:
        return {key: _number_or_text(value) for key, value in record.searched.items()}
    resolved = record.values  # a trial of an earlier version, or of a search that drew nothing
    try:
        searched = load_recipe(record.recipe).search
    except RecipeError:  # of another checkout: what it searched is not known here
        return {}
    return {key: _number_or_text(resolved[key]) for key in searched if key in resolved}


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def read_context(store: Store, records: Sequence[RunRecord]) -> Context:
    """What some evaluated runs have in common; where they differ, all values with slashes."""
    first = records[0]
    data = read_datasets(store, first.run_id)
    comparison = _comparison_of(store, records)
    stated = "" if comparison is None else comparison.tags.get(Tag.COMPARISON, "")
    synthetic = first.tags.get(Tag.SYNTHETIC) == "true"
    seeds = _tag_values(records, Tag.SEED)
    sizes = [one.values.get("image_size", "") for one in records]
    return Context(
        title=f"MURA Lab: {first.part}, {len(records)} run{'s' * (len(records) > 1)}",
        part=first.part,
        data="demo" if synthetic else data["test"].source if "test" in data else "not recorded",
        synthetic=synthetic,
        protocol=" / ".join(_tag_values(records, Tag.PROTOCOL)) or "not recorded",
        seed=int(seeds[0]) if seeds else 0,
        image_size=" / ".join(_unique(sizes)) or "not recorded",
        weights=" / ".join(_tag_values(records, Tag.WEIGHTS)) or "not recorded",
        split_counts=read_counts(data),
        fingerprint=" / ".join(_tag_values(records, Tag.SPLIT_FINGERPRINT)) or "not recorded",
        unreadable=None,
        commit=" / ".join(_unique(describe_commit(one.tags) for one in records)),
        created=datetime.now(UTC),
        machine=describe_machine(False),
        objective=next(iter(_tag_values(records, Tag.OBJECTIVE)), "val_study_auroc"),
        audit=read_audit(store, first),
        checks=read_checks(store, first),
        groups=read_groups(store, first),
        corrected_labels=" / ".join(_tag_values(records, Tag.CORRECTED_LABELS)),
        statements=[stated] if stated else (),
        comparison=comparison is not None,
        notes=_interval_notes(records),
    )


def _interval_notes(records: Sequence[RunRecord]) -> list[str]:
    """A note where runs logged intervals of another method than this page shows; estimates are the same."""
    others = [one.name or one.run_id for one in records if one.tags.get(Tag.INTERVALS) != INTERVAL_METHOD]
    if not others:
        return []
    return [
        f"Intervals logged with {', '.join(others)} were found with another method (bootstrap, BCa), which is too "
        "narrow for few patients. This page and its results.csv recompute them from the same predictions: estimates "
        "are equal, bounds are not."
    ]


def _comparison_of(store: Store, records: Sequence[RunRecord]) -> RunRecord | None:
    """The comparison that all of these runs belong to, or None."""
    parents = {one.parent for one in records}
    if len(parents) != 1 or None in parents:
        return None
    parent = read_run(store, str(*parents), predictions=False)
    return parent if parent.kind == "compare" else None


def _tag_values(records: Iterable[RunRecord], tag: str) -> list[str]:
    return _unique(one.tags.get(tag, "") for one in records)


def _unique(values: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]


def read_counts(data: Mapping[str, LoggedData]) -> pd.DataFrame:
    """The sets' sizes as they were logged with a run."""
    rows = [
        {"set": name, **{key: data[context].profile.get(key, 0) for key in COUNTS}}
        for name, context in CONTEXTS.items()
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
            except StoreUnavailableError:
                raise
            except (MuraLabError, pd.errors.EmptyDataError):
                continue
            return text, table
    return None
