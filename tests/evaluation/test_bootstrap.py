"""Intervals: whole patients are drawn and left out, few patients get wide bounds or none, coverage is as stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from muralab.errors import DataError, SettingsError
from muralab.evaluation.bootstrap import (
    ClusteredSample,
    Interval,
    bootstrap,
    check_same_images,
    difference_interval,
    draw_patients,
    leave_out_patients,
    resample,
)
from muralab.evaluation.interval_formulas import bca_bounds
from muralab.evaluation.metrics import METRICS, evaluate_predictions, register_metric
from muralab.evaluation.predictions import level_rows
from muralab.serving.scaling import Scaling

SKEWED = np.random.default_rng(0).exponential(size=25)
TIED = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 9], dtype=float)


def simulate(n_patients, seed, *, n_studies=2, alike=0.8):
    """One-image studies, whose labels and errors are correlated within a patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_studies)
    label = (rng.normal(0, 1, n_patients)[patient] + rng.normal(0, 1, len(patient)) > 0.3).astype(int)
    logit = 1.2 * label + alike * rng.normal(0, 1, n_patients)[patient] + rng.normal(0, 1, len(patient))
    names = [f"i{i:06d}" for i in range(len(patient))]
    return pd.DataFrame(
        {"image": names, "study": names, "patient": patient, "part": "wrist", "label": label, "logit": logit}
    )


def difference(a, b, metric="auroc", *, level="study", thresholds=(0.5, 0.5), n_resamples=300):
    """The paired difference of two tables."""
    samples = [ClusteredSample(level_rows(t, level=level), threshold=x) for t, x in zip((a, b), thresholds)]
    return difference_interval(*(resample(one, [metric], n_resamples=n_resamples) for one in samples), metric)


@pytest.fixture
def resampled_metric():
    """A registered metric."""
    register_metric("right", title="Right", f=lambda y, p: float(((p >= 0.5) == y).mean()), needs="rows")
    yield "right"
    METRICS.pop("right")


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
    one, two = (bootstrap(t, level="image", metrics=["auroc", "brier"], n_resamples=200) for t in (table, doubled))
    for name in one:
        assert (one[name].low, one[name].high) == pytest.approx((two[name].low, two[name].high), abs=1e-12)


def test_the_order_of_rows_does_not_matter(predictions, resampled_metric):
    settings = {"level": "study", "metrics": list(METRICS), "n_resamples": 200, "seed": 5}
    shuffled = predictions.sample(frac=1, random_state=0)
    assert str(bootstrap(predictions, **settings)) == str(bootstrap(shuffled, **settings))


def test_only_registered_metrics_depend_on_the_draws(predictions, resampled_metric):
    settings = {"level": "study", "metrics": list(METRICS), "n_resamples": 200}
    one, other = (bootstrap(predictions, seed=seed, **settings) for seed in (5, 6))
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
    found = bootstrap(
        predictions, level="study", metrics=list(METRICS), threshold=0.4, scaling=scaling, n_resamples=100
    )
    expected = evaluate_predictions(predictions, level="study", threshold=0.4, scaling=scaling)
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(expected, abs=1e-12)
    found.pop("ece")
    assert all(i.low < i.estimate < i.high and i.reason is None for i in found.values())


def test_calibration_error_gets_no_interval(predictions):
    found = bootstrap(predictions, level="study", metrics=["ece"], n_resamples=100)["ece"]
    assert np.isnan(found.low)
    assert "biases it upward" in found.reason
    assert "[no interval: sampling biases it upward" in str(found)


@pytest.mark.slow
def test_intervals_contain_the_truth_as_often_as_stated():
    names = ["auroc", "average_precision", "kappa", "sensitivity", "brier"]
    truth = evaluate_predictions(simulate(60_000, 10**6), level="image")
    held = dict.fromkeys(names, 0)
    for seed in range(300):
        found = bootstrap(simulate(200, seed), level="image", metrics=names, n_resamples=500, seed=10**7 + seed)
        for name, interval in found.items():
            held[name] += interval.low <= truth[name] <= interval.high
    assert all(0.915 <= count / 300 <= 0.985 for count in held.values()), held  # 95 % within three standard errors


def test_one_class_has_no_interval(predictions):
    found = bootstrap(predictions.assign(label=1), level="study", metrics=["auroc", "accuracy", "brier"])
    assert np.isnan([found["auroc"].estimate, found["auroc"].low, found["auroc"].high]).all()
    assert str(found["auroc"]).startswith("undefined (all ")
    assert found["accuracy"].low < found["accuracy"].high
    assert found["brier"].reason == "0 patients with normal studies are too few for an interval (at least 10)"


def test_one_study_has_no_interval(predictions):
    study = predictions[predictions["study"] == predictions["study"].iloc[0]]
    found = bootstrap(study, level="study", metrics=["accuracy"], n_resamples=100)["accuracy"]
    assert found.estimate in (0, 1)
    assert np.isnan(found.low)
    assert found.reason == "1 patient is too few for an interval (at least 10)"


@pytest.mark.parametrize("n_abnormal", [1, 9, 10])
def test_the_patients_of_the_rarer_class_are_counted(n_abnormal):
    table = simulate(60, 1).assign(label=lambda t: (t["patient"] < n_abnormal).astype(int))
    found = bootstrap(table, level="image", metrics=["auroc", "balanced_accuracy", "brier", "specificity"])
    enough = n_abnormal == 10
    verb = "patient with abnormal studies is" if n_abnormal == 1 else "patients with abnormal studies are"
    for name in ("auroc", "balanced_accuracy", "brier"):
        assert np.isnan(found[name].high) != enough
        assert enough or found[name].reason == f"{n_abnormal} {verb} too few for an interval (at least 10)"
    assert found["specificity"].reason is None


def test_constant_predictions_have_a_reason(predictions):
    found = bootstrap(predictions.assign(logit=0.3), level="study", metrics=["auroc"], n_resamples=100)["auroc"]
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.reason == "all probabilities are equal"


def test_a_registered_metric_without_any_spread_has_no_interval(predictions, resampled_metric):
    perfect = predictions.assign(logit=8.0 * predictions["label"] - 4)
    found = bootstrap(perfect, level="study", metrics=[resampled_metric], n_resamples=100)[resampled_metric]
    assert found.estimate == 1
    assert np.isnan(found.low)
    assert found.reason.startswith("every resample gives the same value")


@pytest.mark.parametrize("n_studies", [1, 2])
def test_a_bound_without_an_error_is_exact_for_single_rows_only(n_studies):
    table = simulate(40, 1, n_studies=n_studies).assign(logit=lambda t: 8.0 * t["label"] - 4)
    found = bootstrap(table, level="image", metrics=["accuracy", "auroc", "kappa"], n_resamples=100)
    exact = stats.binomtest(40, 40).proportion_ci(0.95, method="exact").low
    assert (found["accuracy"].low == pytest.approx(exact, abs=1e-12)) == (n_studies == 1)
    assert ("exact bound for 40 patients" in found["accuracy"].reason) == (n_studies == 1)
    assert found["kappa"].low < found["accuracy"].low < found["accuracy"].high == 1
    assert 0.8 < found["auroc"].low < found["auroc"].high == 1
    assert all(found[name].reason.startswith("approximate bound") for name in ("auroc", "kappa"))


def test_a_model_that_is_always_wrong_gets_a_bound():
    table = simulate(40, 1).assign(logit=lambda t: 4 - 8.0 * t["label"])
    found = bootstrap(table, level="image", metrics=["accuracy", "sensitivity", "auroc"], n_resamples=100)
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
        for found in [bootstrap(table, level="image", metrics=["accuracy"])["accuracy"]]
    ]
    assert widths[1] > widths[0]


def test_an_interval_as_text():
    assert str(Interval(estimate=0.853, low=0.8012, high=0.8991, n_resamples=2000)) == "0.853 [0.801, 0.899]"


@pytest.mark.parametrize(
    ("setting", "message"), [({"confidence": 95}, "such as 0.95; got 95"), ({"n_resamples": 5}, "got 5")]
)
def test_settings_out_of_range_are_refused(predictions, setting, message):
    with pytest.raises(SettingsError, match=message):
        bootstrap(predictions, level="image", metrics=["auroc"], **setting)


# Differences of two models


def test_a_model_does_not_differ_from_itself(predictions):
    for level in ("study", "image"):
        found = difference(predictions, predictions.sample(frac=1, random_state=0), level=level)
        assert (found.estimate, found.low, found.high) == (0, 0, 0)
        assert found.reason == "both make the same predictions"


@pytest.mark.parametrize("n_patients", [12, 60])
@pytest.mark.parametrize("metric", [name for name in METRICS if name != "ece"])
def test_two_perfect_models_may_differ(n_patients, metric):
    a = simulate(n_patients, 0).assign(label=lambda t: t["patient"] % 2, logit=lambda t: 8.0 * t["label"] - 4)
    b = a.assign(logit=a["logit"] * np.linspace(0.9, 1.1, len(a)))
    found = difference(a, b, metric)
    if n_patients == 12 and metric != "accuracy":
        assert "6 patients with " in found.reason
    else:
        assert found.low < -1e-4 < 1e-4 < found.high


def test_a_paired_difference_of_a_registered_metric_without_spread_is_unknown(predictions, resampled_metric):
    perfect = predictions.assign(logit=8.0 * predictions["label"] - 4)
    found = difference(perfect, perfect.assign(logit=perfect["logit"] * 2), resampled_metric)
    assert np.isnan(found.low)
    assert "no patient tells the two apart" in found.reason


def test_a_paired_interval_is_narrower_than_that_of_one_model():
    a = simulate(150, 3)
    b = a.assign(logit=a["logit"] + np.random.default_rng(4).normal(0, 0.3, len(a)))
    pair = difference(a, b.sample(frac=1, random_state=1))
    alone = bootstrap(a, level="study", metrics=["auroc"], n_resamples=300)["auroc"]
    assert pair.high - pair.low < (alone.high - alone.low) / 2
    assert pair.low <= pair.estimate <= pair.high


def test_a_difference_changes_its_sign_with_its_order():
    a, b = simulate(80, 3), simulate(80, 3).assign(logit=lambda t: -t["logit"])
    forth, back = difference(a, b, level="image"), difference(b, a, level="image")
    assert forth.estimate == -back.estimate > 0
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=0.02)


def test_each_model_of_a_pair_has_its_own_threshold(predictions):
    assert difference(predictions, predictions, "sensitivity", thresholds=(0.3, 0.7)).estimate > 0


def test_predictions_of_different_images_are_refused(predictions):
    with pytest.raises(DataError, match=r"different images: 2 have a prediction of one model only(.|\n)*1. i00000"):
        check_same_images(predictions, predictions.iloc[2:])


@pytest.mark.parametrize("column", ["label", "study", "patient"])
def test_predictions_that_disagree_are_refused(predictions, column):
    other = predictions.assign(**{column: "other"})
    with pytest.raises(DataError, match=f"disagree on the {column} of {len(other)} images"):
        check_same_images(predictions, other)
