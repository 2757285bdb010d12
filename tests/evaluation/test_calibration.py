"""Temperatures, threshold and band: what is fitted, on what, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, recall_score, roc_curve

from muralab.errors import DataError, SettingsError
from muralab.evaluation.calibration import Calibration, fit_calibration, fit_temperature
from muralab.evaluation.operating_point import RISK_TARGET, operating_threshold, risk_coverage, uncertain_band
from muralab.evaluation.predictions import sigmoid, to_studies


def draw(seed, n=120, digits=2, effect=0.25):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, np.round(np.clip(rng.normal(0.4 + effect * labels, 0.2), 0.01, 0.99), digits)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(temperature):
    rng = np.random.default_rng(1)
    true_logits = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < sigmoid(true_logits)).astype(int)
    assert fit_temperature(labels, temperature * true_logits) == pytest.approx(temperature, rel=0.05)


def test_separable_studies_get_a_finite_temperature():
    labels = np.repeat([0, 1], 15)
    temperature = fit_temperature(labels, np.where(labels == 1, 1.0, -1.0))
    assert sigmoid(np.array([1 / temperature]))[0] == pytest.approx(16 / 17)


def test_misleading_logits_get_the_highest_temperature():
    labels = np.repeat([0, 1], 50)
    assert fit_temperature(labels, np.where(labels == 1, -3.0, 3.0)) == pytest.approx(20)


def test_the_temperature_minimises_the_log_loss():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, 400)
    labels = (rng.random(400) < sigmoid(logits / 2)).astype(int)
    n_abnormal = labels.sum()
    targets = np.where(labels == 1, (n_abnormal + 1) / (n_abnormal + 2), 1 / (400 - n_abnormal + 2))
    derivative = np.mean((sigmoid(logits / fit_temperature(labels, logits)) - targets) * logits)
    assert derivative == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("digits", [1, 6])
def test_max_kappa_is_the_best_of_all_thresholds(digits):
    for seed in range(5):
        labels, probabilities = draw(seed, digits=digits)
        chosen = operating_threshold(labels, probabilities, "max-kappa")
        best = max(cohen_kappa_score(labels, probabilities >= t) for t in np.unique(probabilities))
        assert cohen_kappa_score(labels, probabilities >= chosen) == pytest.approx(best, abs=1e-12)


def test_youden_is_the_best_of_the_roc_curve():
    labels, probabilities = draw(3)
    chosen = probabilities >= operating_threshold(labels, probabilities, "youden")
    false_rate, true_rate, _ = roc_curve(labels, probabilities)
    found = recall_score(labels, chosen) - (1 - recall_score(labels, chosen, pos_label=0))
    assert found == pytest.approx((true_rate - false_rate).max(), abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_the_highest_threshold_with_the_sensitivity_is_taken(share):
    labels, probabilities = draw(4)
    threshold = operating_threshold(labels, probabilities, f"sensitivity>={share}")
    assert recall_score(labels, probabilities >= threshold) >= share
    next_higher = probabilities[probabilities >= threshold].min() + 1e-9
    assert recall_score(labels, probabilities >= next_higher) < share


def test_a_threshold_lies_between_two_probabilities():
    assert operating_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)


def test_probabilities_that_differ_in_the_last_bit_are_separated():
    low, high = 0.3, np.nextafter(0.3, 1)
    threshold = operating_threshold([0, 0, 1], [low, low, high])
    assert low < threshold <= high


def test_of_equally_good_thresholds_the_nearest_to_one_half_is_taken():
    # Both 0.15 and 0.75 give the same kappa.
    assert operating_threshold([0, 1, 0, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("max-kapa", "Unknown threshold rule 'max-kapa'. Did you mean 'max-kappa'"),
        ("sensitivity>=2", "'sensitivity>=2' needs a share above 0 and up to 1"),
        ("sensitivity>=high", "such as sensitivity>=0.9"),
        ("precision>=0.9", "uses 'precision'; only 'sensitivity>=x' is supported"),
    ],
)
def test_wrong_rules_are_refused(rule, message, predictions):
    with pytest.raises(SettingsError, match=message):
        fit_calibration(predictions, rule=rule)


def test_no_threshold_from_one_class_or_constant_probabilities():
    with pytest.raises(DataError, match="all 3 validation studies are abnormal"):
        operating_threshold([1, 1, 1], [0.1, 0.2, 0.3])
    with pytest.raises(DataError, match=r"have the same probability, 0\.400"):
        operating_threshold([0, 1], [0.4, 0.4])


def test_threshold_comes_from_calibrated_studies(predictions):
    fitted = fit_calibration(predictions)
    studies = to_studies(predictions)
    probabilities = sigmoid(studies["logit"].to_numpy() / fitted.study_temperature)
    assert fitted.threshold == operating_threshold(studies["label"], probabilities)
    assert fitted.study_temperature != pytest.approx(fitted.image_temperature, rel=0.01)
    assert fitted.reason is None


def test_each_temperature_is_fitted_at_its_level(predictions):
    fitted, studies = fit_calibration(predictions), to_studies(predictions)
    assert fitted.temperature("image") == fit_temperature(predictions["label"], predictions["logit"])
    assert fitted.temperature("study") == fit_temperature(studies["label"], studies["logit"])


@pytest.mark.parametrize(
    ("change", "reason"), [({"label": 0}, "validation studies are normal"), ({"logit": 1.5}, "the same probability")]
)
def test_nothing_is_fitted_to_degenerate_studies(predictions, change, reason):
    fitted = fit_calibration(predictions.assign(**change), rule="youden")
    assert (fitted.image_temperature, fitted.study_temperature, fitted.threshold) == (1, 1, 0.5)
    assert reason in fitted.reason


def test_missing_logits_are_refused(predictions):
    predictions.loc[3, "logit"] = np.nan
    with pytest.raises(DataError, match=r"1 of .* images have no finite logit"):
        fit_calibration(predictions)


def test_risk_and_coverage_start_at_all_studies():
    coverage, risk, distance = risk_coverage([0, 1, 0, 1], [0.1, 0.45, 0.6, 0.9], 0.5)
    assert coverage.tolist() == [1, 0.75, 0.5]  # 0.1 and 0.9 are equally far
    assert risk.tolist() == [0.5, pytest.approx(1 / 3), 0]
    assert (np.diff(distance) > 0).all()


def test_the_band_lowers_the_risk_to_its_target():
    labels, probabilities = draw(5, n=400, digits=6, effect=0.4)
    threshold = operating_threshold(labels, probabilities)
    low, high = uncertain_band(labels, probabilities, threshold)
    wrong = (probabilities >= threshold) != labels
    answered = (probabilities < low) | (probabilities > high)
    assert low < threshold < high
    assert wrong[answered].mean() <= RISK_TARGET * wrong.mean()
    assert answered.mean() >= 0.7


def test_no_band_where_it_would_not_help():
    labels, probabilities = draw(6, n=400)
    assert uncertain_band(labels, np.where(labels == 1, 0.8, 0.2), 0.5) is None  # no error
    assert uncertain_band(labels, np.where(probabilities > 0.5, 0.9, 0.1), 0.5) is None  # all at the same distance


def test_fifty_studies_are_enough_for_a_band():
    labels = np.tile([0, 1], 25)
    probabilities = np.where(labels == 1, 0.9, 0.1)
    probabilities[:4] = [0.55, 0.45, 0.56, 0.44]  # wrong, and near the threshold
    low, high = uncertain_band(labels, probabilities, 0.5)
    assert 0.44 < low < 0.45
    assert 0.55 < high < 0.56
    assert uncertain_band(labels[:49], probabilities[:49], 0.5) is None


@pytest.mark.parametrize(("n_near", "given"), [(30, True), (31, False)])
def test_a_band_leaves_out_three_of_ten_studies_at_most(n_near, given):
    labels = np.tile([0, 1], 50)
    probabilities = np.where(labels == 1, 0.95, 0.05)
    probabilities[:n_near] = np.where(labels[:n_near] == 1, 0.6, 0.4)
    probabilities[:4] = 1 - probabilities[:4]  # all errors lie within the band
    assert (uncertain_band(labels, probabilities, 0.5) is not None) == given


def test_the_band_is_fitted_on_calibrated_studies():
    labels, probabilities = draw(5, n=400, digits=6, effect=0.4)
    logits = 3 * np.log(probabilities / (1 - probabilities))  # far too confident
    names = [f"s{number:03d}" for number in range(400)]
    columns = {"image": names, "study": names, "patient": names, "part": "wrist", "label": labels, "logit": logits}
    fitted = fit_calibration(pd.DataFrame(columns))
    expected = uncertain_band(labels, sigmoid(logits / fitted.study_temperature), fitted.threshold)
    assert expected is not None
    assert (fitted.uncertain_low, fitted.uncertain_high) == pytest.approx(expected)


def test_a_calibration_can_be_stored():
    stored = Calibration(study_temperature=1.7, threshold=0.31, uncertain_low=0.2, uncertain_high=0.4)
    assert Calibration.from_dict(stored.to_dict()) == stored


def test_the_fitted_threshold_is_only_for_studies():
    fitted = Calibration(threshold=0.31)
    assert (fitted.threshold_of("study"), fitted.threshold_of("image")) == (0.31, 0.5)


def test_a_stored_calibration_with_unknown_keys_is_refused():
    with pytest.raises(DataError, match=r"must have exactly the keys .*; missing or unknown: temperature"):
        Calibration.from_dict({**Calibration().to_dict(), "temperature": 1.0})


def test_values_out_of_range_are_refused():
    with pytest.raises(SettingsError, match="study_temperature must be a finite number above 0"):
        Calibration(study_temperature=0)
    with pytest.raises(SettingsError, match=r"must be 0 <= low <= high <= 1, or None; got 0\.6 and 0\.4"):
        Calibration(uncertain_low=0.6, uncertain_high=0.4)
