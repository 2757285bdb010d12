"""Intervals: whole patients are drawn and left out, few patients get wide bounds or none, coverage is as stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from muralab.errors import SettingsError
from muralab.evaluation.interval_formulas import bca_bounds
from muralab.evaluation.intervals import (
    Interval,
    draw_patients,
    leave_out_patients,
    metric_intervals,
)
from muralab.evaluation.metrics import METRICS, evaluate_predictions
from muralab.serving.scaling import Scaling
from tests.evaluation.conftest import simulate

SKEWED = np.random.default_rng(0).exponential(size=25)
TIED = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 9], dtype=float)


# Draws


def test_patients_are_drawn_with_replacement():
    weights = np.concatenate(list(draw_patients(30, 500, seed=1)))
    assert weights.shape == (500, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 30, rel=0.05)


@pytest.mark.parametrize("n_patients", [70, 2500])
def test_each_patient_is_left_out_once(n_patients):
    weights = np.concatenate(list(leave_out_patients(n_patients)))
    assert ((1 - weights).sum(axis=0) == 1).all()


def test_all_rows_of_a_patient_are_drawn_together():
    table = simulate(60, 2)
    doubled = pd.concat([table, table.assign(image=table["image"] + "b", study=table["study"] + "b")])
    one, two = (
        metric_intervals(t, level="image", metrics=["auroc", "brier"], n_resamples=200) for t in (table, doubled)
    )
    for name in one:
        assert (one[name].low, one[name].high) == pytest.approx((two[name].low, two[name].high), abs=1e-12)


def test_the_order_of_rows_does_not_matter(predictions, resampled_metric):
    settings = {"level": "study", "metrics": list(METRICS), "n_resamples": 200, "seed": 5}
    shuffled = predictions.sample(frac=1, random_state=0)
    assert str(metric_intervals(predictions, **settings)) == str(metric_intervals(shuffled, **settings))


def test_only_registered_metrics_depend_on_the_draws(predictions, resampled_metric):
    settings = {"level": "study", "metrics": list(METRICS), "n_resamples": 200}
    one, other = (metric_intervals(predictions, seed=seed, **settings) for seed in (5, 6))
    assert [name for name in METRICS if str(one[name]) != str(other[name])] == [resampled_metric]
    assert [name for name in METRICS if one[name].n_resamples] == [resampled_metric]


# Bounds


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    ("values", "statistic"), [(SKEWED, np.mean), (SKEWED, np.var), (-SKEWED, np.mean), (TIED, np.mean)]
)
def test_bca_bounds_equal_scipys(values, statistic, confidence):
    theirs = stats.bootstrap((values,), statistic, n_resamples=3000, confidence_level=confidence, rng=1, method="BCa")
    kept = np.concatenate(list(leave_out_patients(len(values)))).astype(bool)
    without = np.array([statistic(values[row]) for row in kept])
    ours = bca_bounds(statistic(values), theirs.bootstrap_distribution, without, confidence)
    assert ours == pytest.approx(theirs.confidence_interval, abs=1e-9)


def test_bca_bounds_of_a_skewed_statistic_are_not_its_percentiles():
    drawn = np.random.default_rng(1).choice(SKEWED, size=(3000, len(SKEWED))).var(axis=1)
    without = np.array([np.delete(SKEWED, row).var() for row in range(len(SKEWED))])
    low, high = bca_bounds(SKEWED.var(), drawn, without, 0.95)
    percentiles = np.quantile(drawn, [0.025, 0.975])
    assert low > percentiles[0] * 1.05
    assert high > percentiles[1] * 1.05


def test_bca_bounds_of_a_symmetric_statistic_are_its_percentiles():
    values = np.random.default_rng(0).normal(3, 1, 100_000)
    bounds = bca_bounds(3.0, values, np.array([2.9, 3.0, 3.1]), 0.95)
    assert bounds == pytest.approx((3 - 1.96, 3 + 1.96), abs=0.03)


def test_a_statistic_that_no_patient_changes_has_no_acceleration():
    drawn = np.linspace(0, 1, 1001)
    assert bca_bounds(0.5, drawn, np.full(20, 0.5), 0.9) == pytest.approx((0.05, 0.95), abs=1e-9)


@pytest.mark.parametrize("estimate", [-1.0, 2.0])
def test_an_estimate_beyond_every_resample_has_finite_bounds(estimate):
    bounds = bca_bounds(estimate, np.linspace(0, 1, 1001), np.full(20, 0.5), 0.95)
    assert bounds == pytest.approx((0, 0) if estimate < 0 else (1, 1), abs=0.01)


# Intervals of one model


def test_estimates_equal_the_metrics(predictions):
    scaling = Scaling(temperature=2, intercept=-0.5)
    found = metric_intervals(
        predictions, level="study", metrics=list(METRICS), threshold=0.4, scaling=scaling, n_resamples=100
    )
    expected = evaluate_predictions(predictions, level="study", threshold=0.4, scaling=scaling)
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(expected, abs=1e-12)
    found.pop("ece")
    assert all(i.low < i.estimate < i.high and i.reason is None for i in found.values())


def test_calibration_error_gets_no_interval(predictions):
    found = metric_intervals(predictions, level="study", metrics=["ece"], n_resamples=100)["ece"]
    assert np.isnan(found.low)
    assert "biases it upward" in found.reason
    assert "[no interval: sampling biases it upward" in str(found)


@pytest.mark.slow
def test_intervals_contain_the_truth_as_often_as_stated():
    names = ["auroc", "average_precision", "kappa", "sensitivity", "brier"]
    truth = evaluate_predictions(simulate(60_000, 10**6), level="image")
    held = dict.fromkeys(names, 0)
    for seed in range(300):
        found = metric_intervals(simulate(200, seed), level="image", metrics=names, n_resamples=500, seed=10**7 + seed)
        for name, interval in found.items():
            held[name] += interval.low <= truth[name] <= interval.high
    assert all(0.915 <= count / 300 <= 0.985 for count in held.values()), held  # 95% within three standard errors


def test_one_class_has_no_interval(predictions):
    found = metric_intervals(predictions.assign(label=1), level="study", metrics=["auroc", "accuracy", "brier"])
    assert np.isnan([found["auroc"].estimate, found["auroc"].low, found["auroc"].high]).all()
    assert str(found["auroc"]).startswith("undefined (all ")
    assert found["accuracy"].low < found["accuracy"].high
    assert found["brier"].reason == "0 patients with normal studies are too few for an interval (at least 10)"


def test_one_study_has_no_interval(predictions):
    study = predictions[predictions["study"] == predictions["study"].iloc[0]]
    found = metric_intervals(study, level="study", metrics=["accuracy"], n_resamples=100)["accuracy"]
    assert found.estimate in (0, 1)
    assert np.isnan(found.low)
    assert found.reason == "1 patient is too few for an interval (at least 10)"


@pytest.mark.parametrize("n_abnormal", [1, 9, 10])
def test_the_patients_of_the_rarer_class_are_counted(n_abnormal):
    table = simulate(60, 1).assign(label=lambda t: (t["patient"] < n_abnormal).astype(int))
    found = metric_intervals(table, level="image", metrics=["auroc", "balanced_accuracy", "brier", "specificity"])
    enough = n_abnormal == 10
    verb = "patient with abnormal studies is" if n_abnormal == 1 else "patients with abnormal studies are"
    for name in ("auroc", "balanced_accuracy", "brier"):
        assert np.isnan(found[name].high) != enough
        assert enough or found[name].reason == f"{n_abnormal} {verb} too few for an interval (at least 10)"
    assert found["specificity"].reason is None


def test_constant_predictions_have_a_reason(predictions):
    found = metric_intervals(predictions.assign(logit=0.3), level="study", metrics=["auroc"], n_resamples=100)["auroc"]
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.reason == "all probabilities are equal"


def test_a_registered_metric_without_any_spread_has_no_interval(predictions, resampled_metric):
    perfect = predictions.assign(logit=8.0 * predictions["label"] - 4)
    found = metric_intervals(perfect, level="study", metrics=[resampled_metric], n_resamples=100)[resampled_metric]
    assert found.estimate == 1
    assert np.isnan(found.low)
    assert found.reason.startswith("every resample gives the same value")


@pytest.mark.parametrize("n_studies", [1, 2])
def test_a_bound_without_an_error_is_exact_for_single_rows_only(n_studies):
    table = simulate(40, 1, n_studies=n_studies).assign(logit=lambda t: 8.0 * t["label"] - 4)
    found = metric_intervals(table, level="image", metrics=["accuracy", "auroc", "kappa"], n_resamples=100)
    exact = stats.binomtest(40, 40).proportion_ci(0.95, method="exact").low
    assert (found["accuracy"].low == pytest.approx(exact, abs=1e-12)) == (n_studies == 1)
    assert ("exact bound for 40 patients" in found["accuracy"].reason) == (n_studies == 1)
    assert found["kappa"].low < found["accuracy"].low < found["accuracy"].high == 1
    assert 0.8 < found["auroc"].low < found["auroc"].high == 1
    assert all(found[name].reason.startswith("approximate bound") for name in ("auroc", "kappa"))


def test_a_model_that_is_always_wrong_gets_a_bound():
    table = simulate(40, 1).assign(logit=lambda t: 4 - 8.0 * t["label"])
    found = metric_intervals(table, level="image", metrics=["accuracy", "sensitivity", "auroc"], n_resamples=100)
    assert [interval.low for interval in found.values()] == [0, 0, 0]
    assert 0 < found["accuracy"].high < found["sensitivity"].high < 0.5
    assert found["accuracy"].reason == "approximate bound (score interval) for 40 patients without a single success"


def test_patients_of_unequal_size_widen_the_interval():
    even = simulate(60, 1, n_studies=4)
    uneven = even[(even.groupby("patient").cumcount() == 0) | (even["patient"] < 9)]
    uneven = pd.concat(
        [uneven] + [uneven[uneven["patient"] == 1].assign(image=f"c{i}", study=f"c{i}") for i in range(9)]
    )
    widths = [
        found.high - found.low
        for table in (even, uneven.drop_duplicates("image"))
        for found in [metric_intervals(table, level="image", metrics=["accuracy"])["accuracy"]]
    ]
    assert widths[1] > widths[0]


@pytest.mark.parametrize("metric", [name for name, one in METRICS.items() if one.no_interval is None])
def test_no_bound_lies_beyond_what_is_possible(metric):
    """Two patients have 100 of 130 studies, so that hardly anything is known."""
    n, label = 130, np.arange(130) % 2
    patient = [f"big{label[i]}" if i < 100 else f"p{i}" for i in range(n)]
    logit = 2 * label - 1 + np.random.default_rng(0).normal(size=n)
    names = [f"i{i:03d}" for i in range(n)]
    table = pd.DataFrame({"image": names, "study": names, "patient": patient, "label": label, "logit": logit})
    found = metric_intervals(table.assign(part="wrist"), level="image", metrics=[metric])[metric]
    smallest, largest = METRICS[metric].limits
    assert smallest <= found.low <= found.estimate <= found.high <= largest


def test_an_interval_as_text():
    assert str(Interval(estimate=0.853, low=0.8012, high=0.8991, n_resamples=2000)) == "0.853 [0.801, 0.899]"


@pytest.mark.parametrize(
    ("setting", "message"), [({"confidence": 95}, "such as 0.95; got 95"), ({"n_resamples": 5}, "got 5")]
)
def test_settings_out_of_range_are_refused(predictions, setting, message):
    with pytest.raises(SettingsError, match=message):
        metric_intervals(predictions, level="image", metrics=["auroc"], **setting)
