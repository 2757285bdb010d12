"""The look at the test set: what is fitted on which set, and at which threshold and temperature a figure stands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.bootstrap import bootstrap
from muralab.evaluation.calibration import fit_calibration
from muralab.evaluation.metrics import METRICS, evaluate_predictions
from muralab.results import final_test as verdict
from muralab.results.final_test import Judged, judge_trial
from tests.tune.test_trial_logger import Notes

RULE = "sensitivity>=0.9"


def guess(seed: int, *, shift: float) -> pd.DataFrame:
    """Two views of one study of 60 patients each; the logits are far too sure and off by `shift`."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(60), 2)
    names = [f"s{seed}-{number:03d}" for number in patient]
    images = [f"{name}-{view % 2}" for view, name in enumerate(names)]
    logit = 4 * rng.normal(patient % 2 - 0.5, 0.7) + shift
    columns = {"image": images, "study": names, "patient": names, "part": "wrist", "label": patient % 2}
    return pd.DataFrame({**columns, "logit": logit})


VALIDATION, TEST = guess(1, shift=2.0), guess(2, shift=-1.0)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Judged, dict[str, float]]:
    """A trial that has met the test set, and the figures that were logged of it."""
    notes: Any = Notes()
    spec: Any = SimpleNamespace(recipe="cnn", folder=str(tmp_path))
    monkeypatch.setattr(verdict, "predict_validation_and_test", lambda _: (None, VALIDATION, TEST))
    found = judge_trial(spec, "r1", notes, rule=RULE, keep_weights=False)
    ((_, _, figures),) = notes.all("log_epoch")
    return found, figures


def test_the_calibration_is_fitted_on_validation(judged: tuple[Judged, dict[str, float]]) -> None:
    assert judged[0].calibration == fit_calibration(VALIDATION, rule=RULE)
    assert judged[0].calibration != fit_calibration(TEST, rule=RULE)


def test_figures_of_studies_stand_at_the_fitted_threshold_and_temperature(
    judged: tuple[Judged, dict[str, float]],
) -> None:
    fitted = fit_calibration(VALIDATION, rule=RULE)
    at = {"threshold": fitted.threshold, "temperature": fitted.study_temperature}
    expected = evaluate_predictions(TEST, level="study", **at)
    assert {name: judged[1][f"test_study_{name}"] for name in METRICS} == pytest.approx(expected)
    assert judged[1]["threshold"] == fitted.threshold


def test_figures_of_images_stand_at_a_half_and_uncalibrated(judged: tuple[Judged, dict[str, float]]) -> None:
    names = {"test_loss": "log_loss", "test_accuracy": "accuracy", "test_auroc": "auroc"}
    raw = evaluate_predictions(TEST, level="image", threshold=0.5, temperature=1.0)
    assert {name: judged[1][name] for name in names} == {name: raw[metric] for name, metric in names.items()}


def test_intervals_stand_at_the_same_threshold_and_temperature(judged: tuple[Judged, dict[str, float]]) -> None:
    fitted = fit_calibration(VALIDATION, rule=RULE)
    at = {"threshold": fitted.threshold, "temperature": fitted.study_temperature}
    expected = bootstrap(TEST, level="study", metrics=["auroc", "kappa"], **at)
    assert judged[0].intervals == expected
    assert judged[1]["test_study_kappa_low"] == expected["kappa"].low
    assert judged[1]["test_study_kappa_high"] == expected["kappa"].high
