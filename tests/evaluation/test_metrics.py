"""Metrics: equal to scikit-learn, NaN with a reason where undefined, refused where the input is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from muralab.errors import DataError, SettingsError
from muralab.evaluation.intervals import metric_intervals
from muralab.evaluation.metrics import (
    METRICS,
    evaluate,
    evaluate_predictions,
    main_metrics,
    register_metric,
    undefined_reason,
)
from muralab.evaluation.weighted_sums import ECE_BINS, SortedScores
from muralab.serving.scaling import Scaling

REFERENCES = {
    "auroc": lambda y, p, c: sk.roc_auc_score(y, p),
    "average_precision": lambda y, p, c: sk.average_precision_score(y, p),
    "accuracy": lambda y, p, c: sk.accuracy_score(y, c),
    "balanced_accuracy": lambda y, p, c: sk.balanced_accuracy_score(y, c),
    "f1": lambda y, p, c: sk.f1_score(y, c),
    "sensitivity": lambda y, p, c: sk.recall_score(y, c),
    "specificity": lambda y, p, c: sk.recall_score(y, c, pos_label=0),
    "kappa": lambda y, p, c: sk.cohen_kappa_score(y, c),
    "brier": lambda y, p, c: sk.brier_score_loss(y, p),
    "log_loss": lambda y, p, c: sk.log_loss(y, p),
    "ece": lambda y, p, c: ece_by_loop(y, p),
}


def ece_by_loop(labels, probabilities):
    bins = np.minimum(np.floor(probabilities * ECE_BINS), ECE_BINS - 1)
    gaps = [(abs((probabilities - labels)[bins == b].mean()), (bins == b).mean()) for b in np.unique(bins)]
    return sum(gap * share for gap, share in gaps)


def draw(seed, *, tied):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 300))
    labels = np.append([0, 1], rng.integers(0, 2, n))
    probabilities = np.clip(rng.normal(0.4 + 0.2 * labels, 0.3), 0, 1)
    return labels, np.round(probabilities, 1) if tied else probabilities


def test_every_metric_has_a_reference():
    assert set(REFERENCES) == set(METRICS)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_equals_the_reference_to_1e_12(name, tied):
    for seed in range(40):
        labels, probabilities = draw(seed, tied=tied)
        expected = REFERENCES[name](labels, probabilities, probabilities >= 0.4)
        assert METRICS[name](labels, probabilities, threshold=0.4) == pytest.approx(expected, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_weights_equal_repeated_rows(name, tied):
    labels, probabilities = draw(7, tied=tied)
    weights = np.random.default_rng(8).integers(0, 4, len(labels))
    scores = SortedScores(labels, probabilities)
    weighted = METRICS[name].values(scores.weighted(weights[None, scores.order].astype(float)))
    repeated = METRICS[name](np.repeat(labels, weights), np.repeat(probabilities, weights))
    assert weighted[0] == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan_with_a_reason(label):
    found = evaluate([label] * 5, [0.1, 0.2, 0.6, 0.7, 0.8])
    for name in ("auroc", "average_precision", "balanced_accuracy", "kappa"):
        assert np.isnan(found[name])
        assert undefined_reason(name, [label] * 5, [0.5] * 5).startswith("all 5 rows are")
    assert found["accuracy"] == (0.6 if label else 0.4)
    assert np.isnan(found["sensitivity"]) == (label == 0)
    assert np.isnan(found["specificity"]) == (label == 1)


def test_a_metric_is_nan_exactly_where_a_reason_is_given():
    for labels in ([], [0], [1], [0, 1], [1, 1, 0]):
        probabilities = [0.5] * len(labels)
        for name, value in evaluate(labels, probabilities).items():
            assert np.isnan(value) == (undefined_reason(name, labels, probabilities) is not None)


def test_constant_predictions_are_at_chance():
    found = evaluate([0, 1, 1, 0], [0.7] * 4)
    assert (found["auroc"], found["kappa"], found["balanced_accuracy"]) == (0.5, 0.0, 0.5)


def test_a_probability_at_the_threshold_is_abnormal():
    found = evaluate([0, 1, 1, 0], [0.3, 0.3, 0.2, 0.1], threshold=0.3)
    assert (found["sensitivity"], found["specificity"]) == (0.5, 0.5)


def test_predictions_are_evaluated_at_their_level(predictions):
    images = evaluate_predictions(predictions, level="image")
    assert images["auroc"] == pytest.approx(sk.roc_auc_score(predictions["label"], predictions["logit"]), abs=1e-12)
    assert evaluate_predictions(predictions, level="study")["auroc"] != images["auroc"]


def test_a_temperature_changes_the_calibration_only(predictions):
    cold, warm = (evaluate_predictions(predictions, level="study", scaling=Scaling(temperature=t)) for t in (1.0, 3.0))
    assert cold["auroc"] == pytest.approx(warm["auroc"], abs=1e-12)
    assert cold["log_loss"] != pytest.approx(warm["log_loss"], abs=1e-3)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [0.5, np.nan], r"1 of 2 probabilities are missing \(NaN\)"),
        ([0, 1], [0.5, 1.5], r"must lie in \[0, 1\]; 1 of 2 do not. Were logits passed\?"),
        ([0, 2], [0.5, 0.5], "Labels must be 0 or 1; 1 of 2 are neither"),
        ([0, 1], [0.5], r"one-dimensional and of equal length; got shapes \(2,\) and \(1,\)"),
    ],
)
def test_wrong_rows_are_refused(labels, probabilities, message):
    with pytest.raises(DataError, match=message):
        evaluate(labels, probabilities)


def test_a_missing_threshold_is_refused():
    with pytest.raises(DataError, match="threshold is missing"):
        evaluate([0, 1], [0.1, 0.9], threshold=float("nan"))


def test_an_unknown_metric_gets_the_nearest_suggested():
    with pytest.raises(SettingsError, match=r"Unknown metric 'auroc_score'\. Did you mean 'auroc'\?"):
        evaluate([0, 1], [0.1, 0.9], names=["auroc_score"])


def test_an_unknown_level_is_refused(predictions):
    with pytest.raises(SettingsError, match="Unknown level 'patient': expected 'image' or 'study'"):
        evaluate_predictions(predictions, level="patient")


# Registered metrics


@pytest.fixture
def jaccard():
    """A plain function, registered as a metric."""
    register_metric("jaccard", title="Jaccard index", f=lambda y, p: float(sk.jaccard_score(y, p >= 0.5)))
    yield "jaccard"
    METRICS.pop("jaccard")


def test_a_registered_metric_is_computed(jaccard, predictions):
    found = evaluate_predictions(predictions, level="image")[jaccard]
    expected = sk.jaccard_score(predictions["label"], predictions["logit"] >= 0)
    assert found == pytest.approx(expected, abs=1e-12)
    assert jaccard in main_metrics()


def test_a_registered_metric_gets_nearly_the_interval_of_a_built_in_one(jaccard, predictions):
    register_metric("recall", title="Recall", f=lambda y, p: float(sk.recall_score(y, p >= 0.5)), needs="abnormal")
    try:
        found = metric_intervals(
            predictions, level="study", metrics=["recall", "sensitivity", jaccard], n_resamples=200
        )
    finally:
        METRICS.pop("recall")
    bounds = [(found[name].low, found[name].high) for name in ("recall", "sensitivity")]
    assert bounds[0] == pytest.approx(bounds[1], abs=0.03)
    assert found[jaccard].low < found[jaccard].estimate < found[jaccard].high


def test_a_registered_metric_is_undefined_with_a_reason(jaccard):
    assert np.isnan(evaluate([1, 1], [0.2, 0.8])[jaccard])
    assert undefined_reason(jaccard, [1, 1], [0.2, 0.8]) == "all 2 rows are abnormal: jaccard needs normal ones"


@pytest.mark.parametrize(("name", "message"), [("auroc", "already registered"), ("My metric", "must match")])
def test_a_wrong_metric_name_is_refused(name, message):
    with pytest.raises(SettingsError, match=message):
        register_metric(name, title="X", f=lambda y, p: 0.0)


def test_an_error_in_a_registered_metric_names_it():
    register_metric("broken", title="Broken", f=lambda y, p: 1 / 0)
    try:
        with pytest.raises(SettingsError, match="metric 'broken' raised ZeroDivisionError: division by zero"):
            evaluate([0, 1], [0.2, 0.8])
    finally:
        METRICS.pop("broken")
