"""Intervals: whole patients are drawn, pairs share their draws, coverage is as stated, nothing is made up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.errors import DataError, SettingsError
from muralab.evaluation.bca import bca_ends, draw_patients, exact_share, leave_out_patients
from muralab.evaluation.bootstrap import Interval, bootstrap, paired_difference
from muralab.evaluation.metrics import METRICS, evaluate_predictions


def simulate(n_patients, seed, *, n_studies=2, alike=0.8):
    """One-image studies, whose labels and errors are alike within a patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_studies)
    label = (rng.normal(0, 1, n_patients)[patient] + rng.normal(0, 1, len(patient)) > 0.3).astype(int)
    logit = 1.2 * label + alike * rng.normal(0, 1, n_patients)[patient] + rng.normal(0, 1, len(patient))
    names = [f"i{i:06d}" for i in range(len(patient))]
    return pd.DataFrame(
        {"image": names, "study": names, "patient": patient, "part": "wrist", "label": label, "logit": logit}
    )


def test_patients_are_drawn_with_replacement():
    weights = np.concatenate(list(draw_patients(30, 500, seed=1)))
    assert weights.shape == (500, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 30, rel=0.05)


def test_leaving_out_takes_each_patient_once():
    for n_patients in (70, 2500):
        weights = np.concatenate(list(leave_out_patients(n_patients)))
        assert ((1 - weights).sum(axis=0) == 1).all()


def test_all_rows_of_a_patient_come_together():
    table = simulate(60, 2)
    doubled = pd.concat([table, table.assign(image=table["image"] + "b", study=table["study"] + "b")])
    one, two = (bootstrap(t, level="image", metrics=["auroc", "brier"], n_resamples=200) for t in (table, doubled))
    for name in one:
        assert (one[name].low, one[name].high) == pytest.approx((two[name].low, two[name].high), abs=1e-12)


def test_one_seed_gives_one_interval_whatever_the_order_of_rows(predictions):
    settings = {"level": "study", "metrics": list(METRICS), "n_resamples": 200, "seed": 5}
    shuffled = predictions.sample(frac=1, random_state=0)
    assert str(bootstrap(predictions, **settings)) == str(bootstrap(shuffled, **settings))
    assert str(bootstrap(predictions, **settings)) != str(bootstrap(predictions, **{**settings, "seed": 6}))


def test_estimates_are_the_metrics(predictions):
    found = bootstrap(predictions, level="study", metrics=list(METRICS), threshold=0.4, temperature=2, n_resamples=100)
    expected = evaluate_predictions(predictions, level="study", threshold=0.4, temperature=2)
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(expected, abs=1e-12)
    assert all(i.low < i.estimate < i.high for name, i in found.items() if name != "ece")


def test_calibration_error_gets_no_interval(predictions):
    found = bootstrap(predictions, level="study", metrics=["ece"], n_resamples=100)["ece"]
    assert np.isnan(found.low)
    assert "biases it upward" in found.reason
    assert str(found).endswith("[no interval]")


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_stated():
    names = ["auroc", "average_precision", "kappa", "sensitivity", "brier"]
    truth = evaluate_predictions(simulate(60_000, 10**6), level="image")
    held = dict.fromkeys(names, 0)
    for seed in range(300):
        found = bootstrap(simulate(200, seed), level="image", metrics=names, n_resamples=500, seed=10**7 + seed)
        for name, interval in found.items():
            held[name] += interval.low <= truth[name] <= interval.high
    assert all(0.915 <= count / 300 <= 0.985 for count in held.values()), held  # 95 % within three standard errors


def test_bca_is_the_percentile_interval_of_a_symmetric_figure():
    values = np.random.default_rng(0).normal(3, 1, 100_000)
    ends = bca_ends(3.0, values, np.array([2.9, 3.0, 3.1]), 0.95)
    assert ends == pytest.approx((3 - 1.96, 3 + 1.96), abs=0.03)


def test_a_model_minus_itself_is_nothing(predictions):
    found = paired_difference(predictions, predictions, level="study", metric="auroc", n_resamples=100)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    assert found.reason == "every resample gives the same value"


def test_a_pair_is_surer_than_two_models_apart():
    a = simulate(150, 3)
    b = a.assign(logit=a["logit"] + np.random.default_rng(4).normal(0, 0.3, len(a)))
    pair = paired_difference(a, b.sample(frac=1, random_state=1), level="study", metric="auroc", n_resamples=300)
    alone = bootstrap(a, level="study", metrics=["auroc"], n_resamples=300)["auroc"]
    assert pair.high - pair.low < (alone.high - alone.low) / 2
    assert pair.low <= pair.estimate <= pair.high


def test_a_difference_changes_its_sign_with_its_order():
    a, b = simulate(80, 3), simulate(80, 3).assign(logit=lambda t: -t["logit"])
    forth, back = (paired_difference(x, y, level="image", metric="auroc", n_resamples=200) for x, y in ((a, b), (b, a)))
    assert forth.estimate == -back.estimate > 0
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=0.02)


def test_each_model_of_a_pair_has_its_own_threshold(predictions):
    found = paired_difference(
        predictions, predictions, level="study", metric="sensitivity", threshold_a=0.3, threshold_b=0.7, n_resamples=100
    )
    assert found.estimate > 0


def test_models_on_different_images_are_refused(predictions):
    with pytest.raises(DataError, match=r"different images: 2 have one prediction only(.|\n)*1. i00000"):
        paired_difference(predictions, predictions.iloc[2:], level="image", metric="auroc")


def test_models_on_different_labels_are_refused(predictions):
    other = predictions.assign(label=1 - predictions["label"])
    with pytest.raises(DataError, match=f"disagree on the label of {len(other)} images"):
        paired_difference(predictions, other, level="image", metric="auroc")


def test_one_class_has_no_interval(predictions):
    found = bootstrap(predictions.assign(label=1), level="study", metrics=["auroc", "accuracy"], n_resamples=100)
    assert np.isnan([found["auroc"].estimate, found["auroc"].low, found["auroc"].high]).all()
    assert str(found["auroc"]).startswith("undefined (all ")
    assert found["accuracy"].low < found["accuracy"].high


def test_one_study_has_no_interval(predictions):
    study = predictions[predictions["study"] == predictions["study"].iloc[0]]
    found = bootstrap(study, level="study", metrics=["accuracy"], n_resamples=100)["accuracy"]
    assert found.estimate in (0, 1)
    assert np.isnan(found.low)
    assert found.reason == "1 patients are too few for an interval (at least 10)"


def test_a_class_of_one_patient_has_no_interval():
    table = simulate(40, 1).assign(label=lambda t: (t["patient"] == 0).astype(int))
    found = bootstrap(table, level="image", metrics=["auroc"], n_resamples=200)["auroc"]
    assert np.isnan(found.high)
    assert "undefined in 3" in found.reason


def test_constant_predictions_say_so(predictions):
    found = bootstrap(predictions.assign(logit=0.3), level="study", metrics=["auroc"], n_resamples=100)["auroc"]
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.reason == "every resample gives the same value"


def test_a_perfect_model_is_not_perfectly_sure():
    table = simulate(40, 1).assign(logit=lambda t: 8.0 * t["label"] - 4)
    found = bootstrap(table, level="image", metrics=["accuracy", "auroc", "kappa"], n_resamples=100)
    assert found["accuracy"].low == pytest.approx(0.025 ** (1 / 40))
    assert found["auroc"].low < found["accuracy"].low < found["accuracy"].high == 1
    assert found["accuracy"].reason == "exact bound for 40 patients without an error"
    assert (found["kappa"].low, found["kappa"].high) == (pytest.approx(2 * found["auroc"].low - 1), 1)


def test_a_model_that_is_always_wrong_is_not_perfectly_sure():
    table = simulate(40, 1).assign(logit=lambda t: 4 - 8.0 * t["label"])
    found = bootstrap(table, level="image", metrics=["accuracy", "sensitivity"], n_resamples=100)
    n_abnormal = table["patient"][table["label"] == 1].nunique()
    assert (found["accuracy"].low, found["sensitivity"].low) == (0, 0)
    assert found["accuracy"].high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert found["sensitivity"].high == pytest.approx(1 - 0.025 ** (1 / n_abnormal))
    assert found["accuracy"].reason == "exact bound for 40 patients without a success"


def test_exact_share_is_clopper_and_pearsons():
    assert exact_share(10, 0.95) == pytest.approx(0.6915, abs=1e-4)


def test_an_interval_reads_as_text():
    assert str(Interval(estimate=0.853, low=0.8012, high=0.8991, n_resamples=2000)) == "0.853 [0.801, 0.899]"


@pytest.mark.parametrize(
    ("setting", "words"), [({"confidence": 95}, "such as 0.95; got 95"), ({"n_resamples": 5}, "got 5")]
)
def test_impossible_settings_are_refused(predictions, setting, words):
    with pytest.raises(SettingsError, match=words):
        bootstrap(predictions, level="image", metrics=["auroc"], **setting)
