"""The final test: what is fitted on which set, and at which threshold and calibration a figure stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation import evaluated_model
from muralab.evaluation.calibration import fit_calibration
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.intervals import INTERVAL_METHOD
from muralab.evaluation.metrics import METRICS, evaluate_predictions, register_metric
from muralab.results import final_test
from muralab.results.final_test import logged_metrics, run_final_test, training_metrics
from muralab.tracking import RunRecord
from muralab.training.phases import PHASES
from muralab.training.trainer import best_name
from muralab.trial import write_table
from tests.tune.recorder import Recorder

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


VALIDATION, TEST, TRAIN = guess(1, shift=2.0), guess(2, shift=-1.0), guess(3, shift=0.5)
TABLES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
RECORD = RunRecord(run_id="r1", name="cnn-00", status="RUNNING", experiment_id="0", metrics={"objective": 0.7})


def build_trial(folder: Path, **overrides: str) -> Any:
    table = folder / "split.csv"
    write_table(table, pd.concat(TABLES.values()).assign(path=""), TABLES)
    return SimpleNamespace(recipe="cnn", folder=str(folder), table=str(table), overrides=overrides, drawn={})


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[EvaluatedModel, Recorder]:
    """A trial that was evaluated on the test set, and what was logged of it."""
    recorder: Any = Recorder()
    monkeypatch.setattr(final_test, "predict_sets", lambda *_: (None, TABLES))
    found = run_final_test(build_trial(tmp_path), RECORD, recorder, rule=RULE, keep_weights=False)
    return found.model, recorder


def logged(tested: tuple[EvaluatedModel, Recorder]) -> dict[str, float]:
    return {name: value for _, _, figures in tested[1].all("log_epoch") for name, value in figures.items()}


def test_the_calibration_is_fitted_on_validation(tested: tuple[EvaluatedModel, Recorder]) -> None:
    assert tested[0].calibration == fit_calibration(VALIDATION, rule=RULE)
    assert tested[0].calibration != fit_calibration(TEST, rule=RULE)


def test_study_figures_are_at_the_fitted_threshold_and_scaling(tested: tuple[EvaluatedModel, Recorder]) -> None:
    fitted = fit_calibration(VALIDATION, rule=RULE)
    at = {"threshold": fitted.threshold, "scaling": fitted.scaling("study")}
    expected = evaluate_predictions(TEST, level="study", **at)
    assert {name: logged(tested)[f"test_study_{name}"] for name in METRICS} == pytest.approx(expected)
    assert logged(tested)["threshold"] == fitted.threshold


def test_image_figures_are_at_a_half_and_uncalibrated(tested: tuple[EvaluatedModel, Recorder]) -> None:
    names = {"test_loss": "log_loss", "test_accuracy": "accuracy", "test_auroc": "auroc"}
    raw = evaluate_predictions(TEST, level="image", threshold=0.5)
    assert {name: logged(tested)[name] for name in names} == {name: raw[metric] for name, metric in names.items()}
    assert tested[0].training.summary["test_accuracy"] == raw["accuracy"]


def test_bounds_are_those_of_the_models_intervals(tested: tuple[EvaluatedModel, Recorder]) -> None:
    kappa = tested[0].intervals()["kappa"]
    assert (logged(tested)["test_study_kappa_low"], logged(tested)["test_study_kappa_high"]) == (kappa.low, kappa.high)


def test_a_registered_metric_is_logged_with_its_bounds() -> None:
    register_metric("margin", title="Mean margin", f=lambda y, p: float(p[y == 1].mean() - p[y == 0].mean()))
    try:
        figures = logged_metrics(EvaluatedModel(recipe="cnn", title="CNN", run_id="r1", test=TEST))
    finally:
        METRICS.pop("margin")
    names = [f"test_study_margin{bound}" for bound in ("_low", "", "_high")]
    low, estimate, high = (figures[name] for name in names)
    assert low < estimate < high


def test_the_objective_is_the_trials_own(tested: tuple[EvaluatedModel, Recorder]) -> None:
    assert tested[0].objective == 0.7


@pytest.mark.parametrize(("tags", "phase"), [({"muralab.kept_phase": "upper"}, "upper"), ({}, "full")])
def test_the_weights_are_those_of_the_phase_that_the_run_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tags: dict[str, str], phase: str
) -> None:
    asked: list[str] = []

    def predict(_: Any, phase: str) -> tuple[None, dict[str, pd.DataFrame]]:
        asked.append(phase)
        return None, TABLES

    monkeypatch.setattr(final_test, "predict_sets", predict)
    recorder: Any = Recorder()
    found = run_final_test(build_trial(tmp_path), replace(RECORD, tags=tags), recorder, rule=RULE, keep_weights=False)
    assert asked == [phase]
    assert found.model.training.tested_phase == phase


def test_training_images_are_measured_like_the_other_sets(tested: tuple[EvaluatedModel, Recorder]) -> None:
    raw = evaluate_predictions(TRAIN, level="image", threshold=0.5)
    found = {name: logged(tested)[f"full_eval_train_{name}"] for name in ("loss", "accuracy")}
    assert found == {"loss": raw["log_loss"], "accuracy": raw["accuracy"]}
    assert tested[0].training.train_value("full", "loss") == (raw["log_loss"], True)


def test_the_studys_schedule_measures_them_after_both_phases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(final_test, "predict_sets", lambda *_, sets: (None, {name: VALIDATION for name in sets}))
    for phase in PHASES:
        (tmp_path / best_name(phase)).touch()
    figures = training_metrics(build_trial(tmp_path, kept_phase="full"), "full", TRAIN)
    losses = [evaluate_predictions(table, level="image")["log_loss"] for table in (VALIDATION, TRAIN)]
    assert [figures[f"{phase}_eval_train_loss"] for phase in PHASES] == losses


def test_the_runs_tag_says_whether_weights_are_kept(tested: tuple[EvaluatedModel, Recorder]) -> None:
    assert tested[1].all("set_tags")[-1] == ("r1", {"muralab.best_of_recipe": "false"})
    assert tested[1].all("log_file") == []


def test_the_runs_tag_names_the_method_of_its_intervals(tested: tuple[EvaluatedModel, Recorder]) -> None:
    assert ("r1", {"muralab.intervals": INTERVAL_METHOD}) in tested[1].all("set_tags")


def test_each_interval_is_computed_once(
    monkeypatch: pytest.MonkeyPatch, tested: tuple[EvaluatedModel, Recorder]
) -> None:
    monkeypatch.setattr(evaluated_model, "metric_interval", None)  # another computation would fail
    assert tested[0].intervals()["auroc"].low < tested[0].intervals()["auroc"].high
