"""A registered version against the champion on one test set: the newer of the two sets they were evaluated on.

The stored test predictions of both are compared where the test sets are the same. Where they differ, the model with
the older run is re-evaluated on the newer test set through its own registered ONNX file; where that is not possible,
the gate refuses the candidate and reports why. Only patients that neither model has seen count (`unseen.py`).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.data.local_files import missing_files
from muralab.errors import DataError, MuraLabError, StoreError, StoreUnavailableError
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.registry.gate import DEFAULT_OBJECTIVE, Decision, Margins, decide, refusal
from muralab.registry.reevaluate import evaluate_registered
from muralab.registry.unseen import find_unseen
from muralab.tracking import (
    Store,
    download_artifact,
    fingerprint_test_set,
    locate_files,
    read_datasets,
    read_run,
    read_tags,
)
from muralab.tracking.pictures import describe_pictures, find_changed
from muralab.tracking.tags import Tag


@dataclass(frozen=True, kw_only=True, eq=False)
class VersionDecision:
    """The gate's decision on a version, with the test set that it is based on."""

    decision: Decision
    test: pd.DataFrame
    """The rows of that test set, one row per image."""
    fingerprint: str = ""
    """Of that test set, as the runs that were evaluated on it are tagged."""
    reevaluated: pd.DataFrame | None = None
    """Predictions on it that were computed for this decision, of the model with the older test set."""
    model: EvaluatedModel | None = None
    """The candidate on the studies that the decision is based on; None where nothing was compared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedVersion:
    """A version of a registered model, as MLflow returns it, with its evaluation."""

    version: Any
    model: EvaluatedModel

    @property
    def title(self) -> str:
        """Such as `version 3`."""
        return f"version {self.version.version}"


def decide_version(
    store: Store, candidate: EvaluatedVersion, champion: Any | None, *, cache: Path, margins: Margins
) -> VersionDecision:
    """Let the gate decide on a version, compared with the champion on one test set (or with chance).

    Args:
        store: holds the runs and the models.
        candidate: the version to promote.
        champion: the version that holds the alias, or None.
        cache: folder of decoded images, for a model that is re-evaluated.
        margins: of the gate.

    Raises:
        DataError: the candidate's predictions are missing or invalid.
    """
    test = candidate.model.predictions()
    fingerprint = fingerprint_of(store, candidate.version.run_id, test)
    objective = candidate.version.tags.get(Tag.OBJECTIVE, DEFAULT_OBJECTIVE)
    if champion is not None and _is_synthetic(candidate.version) and not _is_synthetic(champion):
        reason = f"It was trained on synthetic images; the champion, version {champion.version}, on radiographs."
        return VersionDecision(decision=refusal(reason), test=test, fingerprint=fingerprint)
    stored = None if champion is None else _read_champion(store, champion)
    if champion is None or (stored is not None and _have_same_test_set(store, candidate, stored)):
        owners = [candidate.version] if champion is None else [candidate.version, champion]
        unseen = find_unseen(store, test, owners, candidate.version, champion)
        if unseen.problem:
            return VersionDecision(decision=refusal(unseen.problem), test=test, fingerprint=fingerprint)
        model = candidate.model.on(unseen.studies)
        champion_model = None if stored is None else stored.model.on(unseen.studies)
        decision = decide(model, champion_model, objective=objective, margins=margins).with_notes(unseen.notes)
        return VersionDecision(decision=decision, test=test, fingerprint=fingerprint, model=model)
    return _decide_on_newer(store, candidate, champion, stored, objective=objective, cache=cache, margins=margins)


def read_evaluated(store: Store, run_id: str, title: str) -> EvaluatedModel:
    """A model with the test predictions and the calibration that its run stored.

    Args:
        store: holds the run.
        run_id: the run that trained the model.
        title: of the model in the gate's messages, such as `version 3`.

    Raises:
        StoreError: the run holds no test predictions or no calibration.
    """
    record = read_run(store, run_id)
    test = record.predictions["test"]
    with tempfile.TemporaryDirectory() as folder:
        text = download_artifact(store, run_id, "calibration.json", Path(folder)).read_text(encoding="utf-8")
    calibration = Calibration.from_dict(json.loads(text))
    return EvaluatedModel(recipe=record.recipe, title=title, run_id=run_id, test=test, calibration=calibration)


def _decide_on_newer(
    store: Store,
    candidate: EvaluatedVersion,
    champion: Any,
    stored: EvaluatedVersion | None,
    *,
    objective: str,
    cache: Path,
    margins: Margins,
) -> VersionDecision:
    """Re-evaluate the model with the older run on the newer test set, then compare.

    A champion without a stored evaluation has no test set, so the candidate's is the newer one.
    """
    if stored is not None and _started_s(store, champion) > _started_s(store, candidate.version):
        older, newer, subject = candidate.version, stored, f"It, {candidate.title},"
    else:
        older, newer, subject = champion, candidate, f"The champion, version {champion.version},"
    test = newer.model.predictions()
    fingerprint = fingerprint_of(store, newer.version.run_id, test)
    unseen = find_unseen(store, test, [newer.version], candidate.version, champion)
    if unseen.problem:
        return VersionDecision(decision=refusal(unseen.problem), test=test, fingerprint=fingerprint)
    on_unseen = newer.model.on(unseen.studies)
    try:
        model = _reevaluate(store, older, newer.version, on_unseen.predictions(), cache)
        table = model.predictions()
    except StoreUnavailableError:
        raise
    except MuraLabError as error:
        reason = f"{subject} was evaluated on an older test set and not on that of {newer.title}: {error}"
        return VersionDecision(decision=refusal(reason), test=test, fingerprint=fingerprint)
    pair = (model, on_unseen) if older is candidate.version else (on_unseen, model)
    decision = decide(*pair, objective=objective, margins=margins).with_notes(unseen.notes)
    return VersionDecision(decision=decision, test=test, fingerprint=fingerprint, reevaluated=table, model=pair[0])


def fingerprint_of(store: Store, run_id: str, test: pd.DataFrame) -> str:
    """Of the test set that a run was evaluated on, as it is tagged; else that of the rows that are at hand."""
    tagged = read_tags(store, run_id).get(Tag.TEST_FINGERPRINT)
    return tagged or fingerprint_test_set(test)


def _reevaluate(store: Store, older: Any, newer: Any, test: pd.DataFrame, cache: Path) -> EvaluatedModel:
    """A version on test images of a newer one, through its registered ONNX file, with its own calibration."""
    source = read_datasets(store, newer.run_id).get("test")
    if source is None:
        raise StoreError(f"The run of version {newer.version} has no record of its test data set.")
    tags = read_tags(store, newer.run_id)
    located = locate_files(store, test, source, tags)
    present = located[~located["image"].isin(missing_files(located))]
    if changed := find_changed(store, newer.run_id, present, cache / "pixels"):
        raise DataError(
            f"{describe_pictures(changed, len(test))} at {source.root} have changed since version {newer.version} "
            "was evaluated on them. Put them back, or train it again."
        )
    named = {}
    if source.image_root is not None:
        named = {"manifest": Path(source.source), "columns": json.loads(tags.get(Tag.COLUMNS) or "{}")}
    predictions, calibration = evaluate_registered(
        store, older.name, str(older.version), test, source.root, cache, **named
    )
    return EvaluatedModel(
        recipe=older.tags.get(Tag.RECIPE, ""),
        title=f"version {older.version} (re-evaluated)",
        run_id=older.run_id,
        test=predictions,
        calibration=calibration,
    )


def _read_champion(store: Store, champion: Any) -> EvaluatedVersion | None:
    """The champion with its stored evaluation; None where the run is gone or its predictions are invalid."""
    try:
        model = read_evaluated(store, champion.run_id, f"version {champion.version}")
        model.predictions()
    except StoreUnavailableError:
        raise
    except MuraLabError:
        return None
    return EvaluatedVersion(version=champion, model=model)


def _have_same_test_set(store: Store, a: EvaluatedVersion, b: EvaluatedVersion) -> bool:
    """Whether two versions were evaluated on the same rows, with the same files as far as their digests are known."""
    tests = [one.model.predictions() for one in (a, b)]
    if len({fingerprint_of(store, one.version.run_id, test) for one, test in zip((a, b), tests)}) > 1:
        return False
    if set(tests[0]["image"]) != set(tests[1]["image"]):
        return False  # their names are coded with two keys, of two machines
    found = [read_datasets(store, one.version.run_id).get("test") for one in (a, b)]
    return len({data.digest for data in found if data is not None}) <= 1


def _started_s(store: Store, version: Any) -> float:
    """When a version's run began: of two test sets, the one that was drawn later is the newer."""
    return read_run(store, version.run_id, predictions=False).started_s


def _is_synthetic(version: Any) -> bool:
    return bool(version.tags.get(Tag.SYNTHETIC) == "true")
