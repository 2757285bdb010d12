"""An evaluated model: its values, what is computed once, differences, selection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, average_precision_score

from muralab.errors import DataError
from muralab.evaluation import evaluated_model
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel, TrainingRecord, best_of, paired_difference
from muralab.evaluation.intervals import metric_interval, metric_intervals, resample
from muralab.evaluation.metrics import METRICS, evaluate_predictions
from muralab.serving.scaling import Scaling

SCALING = Scaling(temperature=1.5, intercept=-0.3)
CALIBRATION = Calibration(threshold=0.4, study_temperature=1.5, study_intercept=-0.3, image_temperature=1.2)


@pytest.fixture
def model(predictions) -> EvaluatedModel:
    return EvaluatedModel(recipe="net", title="Net", run_id="r", test=predictions, calibration=CALIBRATION)


@pytest.fixture
def other(model, predictions) -> EvaluatedModel:
    noise = np.random.default_rng(0).normal(0, 1, len(predictions))
    return replace(model, title="Other", test=predictions.assign(logit=predictions["logit"] + noise), calibration=None)


@pytest.fixture
def n_resampled(monkeypatch) -> list[int]:
    """Counts how often patients are resampled."""
    counts = []
    monkeypatch.setattr(evaluated_model, "resample", lambda *given: counts.append(1) or resample(*given))
    return counts


def test_studies_are_calibrated_and_called_at_the_threshold(model):
    studies = model.studies()
    assert studies["calibrated"].to_numpy() == pytest.approx(1 / (1 + np.exp(0.3 - studies["logit"] / 1.5)))
    assert (studies["called"] == (studies["calibrated"] >= 0.4)).all()


def test_study_intervals_use_the_calibration(model, predictions):
    expected = metric_intervals(predictions, level="study", metrics=["kappa", "brier"], threshold=0.4, scaling=SCALING)
    assert {name: model.intervals()[name] for name in expected} == expected
    assert list(model.intervals()) == list(METRICS)


def test_image_intervals_are_uncalibrated_at_one_half(model, predictions):
    found = model.intervals(level="image")
    expected = evaluate_predictions(predictions, level="image")
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(expected, nan_ok=True)


def test_everything_is_resampled_once(model, other, n_resampled):
    for _ in range(2):
        assert model.intervals() is model.intervals()
        assert paired_difference(model, other) is paired_difference(model, other)
        assert model.beats_chance
        paired_difference(other, model, metric="kappa")
    assert len(n_resampled) == 2


def test_a_subgroup_is_built_once(model):
    chosen = [*model.studies()["study"].head(30)]
    assert model.on(chosen) is model.on(chosen[::-1])
    assert set(model.on(chosen).studies()["study"]) == set(chosen)
    assert model.on([*model.studies()["study"]]) is model
    assert model.on(chosen).intervals()["accuracy"] != model.intervals()["accuracy"]


def test_a_pair_uses_each_models_own_calibration(model, other):
    found = paired_difference(model, other, metric="brier")
    estimates = [one.intervals()["brier"].estimate for one in (model, other)]
    assert found.estimate == pytest.approx(estimates[0] - estimates[1])


def test_a_pair_on_images_is_calibrated(model, other):
    by_level = [one.resampled("image") for one in (model, other)]
    estimates = [metric_interval(one, "log_loss").estimate for one in by_level]
    assert paired_difference(model, other, metric="log_loss", level="image").estimate == estimates[0] - estimates[1]
    assert estimates[0] != model.intervals(level="image")["log_loss"].estimate


def test_a_pair_on_different_images_is_refused(model, predictions):
    with pytest.raises(DataError, match="evaluated on different images"):
        paired_difference(model, replace(model, test=predictions.iloc[2:]))


def test_curves_have_the_areas_of_the_metrics(model):
    curves, studies = model.curves(), model.studies()
    auroc = model.intervals()["auroc"].estimate
    assert auc(curves.false_positive_rate, curves.sensitivity) == pytest.approx(auroc, abs=1e-12)
    found = np.sum(np.diff(curves.recall, prepend=0) * curves.precision)
    assert found == pytest.approx(average_precision_score(studies["label"], studies["calibrated"]), abs=1e-12)


def test_one_class_has_no_curves(model, predictions):
    assert replace(model, test=predictions.assign(label=0)).curves() is None


@pytest.mark.parametrize(
    ("table", "problem"),
    [(None, "not evaluated on the test set"), ("empty", "are empty"), ("broken", "have no finite logit")],
)
def test_missing_predictions_are_a_problem(model, predictions, table, problem):
    tables = {"empty": predictions.iloc[:0], "broken": predictions.assign(logit=np.nan)}
    bare = replace(model, test=tables.get(table))
    assert problem in bare.problem()
    assert bare.intervals() == {}
    assert not bare.beats_chance
    with pytest.raises(DataError, match=f"Net: .*{problem}"):
        bare.studies()


def test_sets_are_kept_apart(model, predictions):
    both = replace(model, validation=predictions.assign(logit=-predictions["logit"]))
    assert both.intervals("validation")["auroc"].estimate == pytest.approx(1 - both.intervals()["auroc"].estimate)
    assert model.problem("validation") == "no validation predictions were kept"


def test_without_a_calibration_the_threshold_is_one_half(other):
    assert (other.threshold, other.scaling_of("study"), other.scaling_of("image")) == (0.5, Scaling(), Scaling())


def test_the_selection_score_is_a_validation_value(model):
    history = pd.DataFrame({"val_study_auroc": [0.6, 0.8, 0.7]})
    assert replace(model, objective=0.9, training=TrainingRecord(history=history)).selection_score == 0.9
    assert replace(model, training=TrainingRecord(history=history)).selection_score == 0.8
    summary = {"full_val_study_auroc": 0.75}
    assert replace(model, training=TrainingRecord(history=history, summary=summary)).selection_score == 0.75


def test_the_best_model_is_selected_by_validation(model):
    models = [replace(model, title=title, objective=value) for title, value in (("a", 0.6), ("b", 0.8), ("c", np.nan))]
    assert best_of(models) is models[1]
    assert best_of([]) is None


def test_without_a_score_only_a_single_model_is_best(model, other):
    assert best_of([model, other]) is None
    assert best_of([model]) is model


def test_the_label_is_the_name_or_the_recipe(model):
    assert (model.label, replace(model, name="net-seed1").label) == ("net", "net-seed1")
