"""A version against the champion on one test set: the newer of the two that they have met.

The champion's stored test predictions are compared with the candidate's. Where the two met different test sets, the
model whose run is the older one is judged again on the newer one's, through its own registered ONNX; where that cannot
be done, the gate refuses and says why.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.errors import MuraLabError, StoreError
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.predictions import check_predictions
from muralab.registry.gate import Contender, Margins, Verdict, decide, refusal
from muralab.registry.reevaluate import judge_registered
from muralab.tracking import Store, download_artifact, fingerprint_test_set, read_datasets, read_run
from muralab.tracking.tags import Tag

DEFAULT_OBJECTIVE = "val_study_auroc"


@dataclass(frozen=True, eq=False)
class Ruling:
    """A verdict, the test set that it is about, and the predictions that were made for it."""

    verdict: Verdict
    test: pd.DataFrame
    rejudged: pd.DataFrame | None = None


def decide_version(
    store: Store, name: str, candidate: Any, contender: Contender, champion: Any, cache: Path, margins: Margins
) -> Ruling:
    """Let the gate decide about a version and its model, judged on one test set with the champion's (or chance).

    Args:
        store: that holds runs and models.
        name: of the registered model.
        candidate: its version.
        contender: the same as its run judged it.
        champion: the version that holds the alias, or None.
        cache: folder of decoded images, for a model that is judged again.
        margins: of the gate.

    Raises:
        DataError: the candidate's predictions cannot be judged.
    """
    objective = candidate.tags.get(Tag.OBJECTIVE, DEFAULT_OBJECTIVE)
    if champion is None:
        return Ruling(decide(contender, None, objective=objective, margins=margins), contender.test)
    title = f"version {champion.version}"
    if candidate.tags.get(Tag.SYNTHETIC) == "true" and champion.tags.get(Tag.SYNTHETIC) != "true":
        words = f"It was trained on synthetic pictures; the champion, {title}, on radiographs."
        return Ruling(refusal(words), contender.test)
    held = _read_held(store, champion, title)
    if held is not None and _same_test(store, candidate, contender, champion, held):
        return Ruling(decide(contender, held, objective=objective, margins=margins), contender.test)
    if held is not None and _started_s(store, champion) > _started_s(store, candidate):
        who, older, newer, on = f"It, {contender.title},", candidate, champion, held
    else:  # a champion whose run is gone has no test set that could be the newer one
        who, older, newer, on = f"The champion, {title},", champion, candidate, contender
    try:
        source = read_datasets(store, newer.run_id).get("test")
        if source is None:
            raise StoreError("the newer run names no data set")
        test, calibration = judge_registered(store, name, str(older.version), on.test, Path(source.source), cache)
        check_predictions(test)
    except MuraLabError as error:
        words = f"{who} met an older test set and could not be judged on that of version {newer.version}: {error}"
        return Ruling(refusal(words), on.test)
    again = Contender(title=f"version {older.version} (judged again)", test=test, calibration=calibration)
    pair = (contender, again) if older is champion else (again, on)
    return Ruling(decide(*pair, objective=objective, margins=margins), on.test, rejudged=test)


def read_contender(store: Store, run_id: str, title: str) -> Contender:
    """A model as its run judged it.

    Raises:
        StoreError: the run holds no test predictions or no calibration.
    """
    record = read_run(store, run_id)
    test = record.predictions["test"]
    with tempfile.TemporaryDirectory() as folder:
        text = download_artifact(store, run_id, "calibration.json", Path(folder)).read_text(encoding="utf-8")
    return Contender(title=title, test=test, calibration=Calibration.from_dict(json.loads(text)))


def _read_held(store: Store, champion: Any, title: str) -> Contender | None:
    """The champion as its run judged it; None where the run is gone or holds nothing that can be judged."""
    try:
        held = read_contender(store, champion.run_id, title)
        check_predictions(held.test)
    except MuraLabError:
        return None
    return held


def _same_test(store: Store, candidate: Any, contender: Contender, champion: Any, held: Contender) -> bool:
    same_rows = fingerprint_test_set(held.test) == fingerprint_test_set(contender.test)
    return same_rows and _same_bytes(store, candidate.run_id, champion.run_id)


def _started_s(store: Store, version: Any) -> float:
    """When the run of a version began: of two test sets, the one that was drawn later is the newer."""
    return read_run(store, version.run_id, predictions=False).started_s


def _same_bytes(store: Store, *run_ids: str) -> bool:
    """Whether two runs met the same files under the same names, as far as their digests are known."""
    found = [read_datasets(store, run_id).get("test") for run_id in run_ids]
    return len({one.digest for one in found if one is not None}) <= 1
