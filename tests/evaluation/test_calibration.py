"""Calibration: what is fitted, on what, what is stored, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from muralab.errors import DataError, SettingsError
from muralab.evaluation.calibration import LOG_SLOPE_SD, Calibration, fit_calibration, fit_scaling
from muralab.evaluation.operating_point import label_weight, operating_threshold, uncertain_band
from muralab.evaluation.predictions import to_studies
from muralab.serving.scaling import Scaling, sigmoid


def one_view(labels, logits):
    """One image, study and patient for each label."""
    names = [f"s{number:03d}" for number in range(len(labels))]
    columns = {"image": names, "study": names, "patient": names, "part": "wrist", "label": labels, "logit": logits}
    return pd.DataFrame(columns)


def draw(n, *, temperature=1.0, intercept=0.0, prevalence=0.3, seed=1):
    """Labels, and logits that this scaling calibrates exactly."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < prevalence).astype(int)
    true = 2.25 * (labels - 0.5) + 1.5 * rng.normal(size=n) + np.log(prevalence / (1 - prevalence))
    return labels, temperature * (true - intercept)


@pytest.mark.parametrize(("temperature", "intercept"), [(0.3, 0.0), (1.0, -0.85), (4.0, 2.0)])
def test_a_known_scaling_is_recovered(temperature, intercept):
    labels, logits = draw(20_000, temperature=temperature, intercept=intercept)
    fitted = fit_scaling(labels, logits)
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert fitted.intercept == pytest.approx(intercept, abs=0.08)


def test_the_shift_of_class_weights_is_undone():
    labels, logits = draw(600, intercept=np.log(0.3 / 0.7))  # as trained with both classes weighing the same
    studies = one_view(labels, logits)
    fitted = fit_calibration(studies)
    assert sigmoid(logits).mean() > labels.mean() + 0.1
    for level in ("image", "study"):
        assert fitted.scaling(level).probabilities(logits).mean() == pytest.approx(labels.mean(), abs=0.005)


def test_the_scaling_minimises_the_penalised_log_loss():
    labels, logits = draw(60, temperature=3)
    n = labels.sum()
    targets = np.where(labels == 1, (n + 1) / (n + 2), 1 / (60 - n + 2))
    fitted = fit_scaling(labels, logits)
    residuals, slope = fitted.probabilities(logits) - targets, 1 / fitted.temperature
    assert residuals.sum() == pytest.approx(0, abs=1e-6)
    assert slope * (residuals @ logits) + np.log(slope) / LOG_SLOPE_SD**2 == pytest.approx(0, abs=1e-6)


def test_separable_studies_get_finite_probabilities():
    labels = np.repeat([0, 1], 15)
    low, high = fit_scaling(labels, np.where(labels == 1, 1.0, -1.0)).probabilities([-1.0, 1.0])
    assert (low, high) == pytest.approx((1 - high, 0.90), abs=0.03)


def test_misleading_logits_get_the_highest_temperature_and_a_warning():
    labels = np.repeat([0, 1], 50)
    fitted = fit_calibration(one_view(labels, np.where(labels == 1, -3.0, 3.0) + np.linspace(0, 1, 100)))
    assert fitted.study_temperature == pytest.approx(20)
    assert any("study probabilities hit its bound, a temperature of 20" in warning for warning in fitted.warnings)


@pytest.mark.parametrize("n", [30, 60, 150])
@pytest.mark.parametrize(("distance", "warned"), [(-0.8, True), (0.8, False)])
def test_scores_of_few_studies_that_rank_the_wrong_way_are_a_warning(n: int, distance: float, warned: bool) -> None:
    """The prior of the temperature keeps a small set's fit far away from its bound."""
    labels = (np.arange(n) < 0.4 * n).astype(int)
    fitted = fit_calibration(one_view(labels, np.random.default_rng(0).normal(size=n) + distance * labels))
    assert fitted.study_temperature < 20
    text = "study probabilities means nothing: its scores on the validation set do not rank abnormal above normal"
    assert any(text in one for one in fitted.warnings) == warned


@pytest.mark.parametrize(("n_abnormal", "warned"), [(9, True), (10, False)])
def test_fewer_than_ten_patients_of_a_class_are_a_warning(n_abnormal, warned):
    labels = np.repeat([0, 1], [40, n_abnormal])
    fitted = fit_calibration(one_view(labels, np.linspace(-1, 1, len(labels)) + 0.5 * (labels == 0)))
    assert any("9 validation patients with abnormal studies, fewer than 10" in one for one in fitted.warnings) == warned


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


def test_threshold_comes_from_calibrated_studies(predictions):
    fitted = fit_calibration(predictions)
    studies = to_studies(predictions)
    probabilities = fitted.scaling("study").probabilities(studies["logit"])
    assert fitted.threshold == operating_threshold(studies["label"], probabilities, patients=studies["patient"])
    assert fitted.threshold_weight == label_weight(studies["label"], studies["patient"])
    assert fitted.study_temperature != pytest.approx(fitted.image_temperature, rel=0.01)
    assert fitted.reason is None


def test_each_scaling_is_fitted_at_its_level(predictions):
    fitted, studies = fit_calibration(predictions), to_studies(predictions)
    assert fitted.scaling("image") == fit_scaling(predictions["label"], predictions["logit"])
    assert fitted.scaling("study") == fit_scaling(studies["label"], studies["logit"])


def test_the_share_of_abnormal_studies_is_stored(predictions):
    fitted, studies = fit_calibration(predictions), to_studies(predictions)
    assert (fitted.prevalence, fitted.n_studies) == (studies["label"].mean(), len(studies))


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


def test_the_band_is_fitted_on_calibrated_studies():
    labels, logits = draw(400, temperature=3)
    fitted = fit_calibration(one_view(labels, logits))
    expected = uncertain_band(fitted.scaling("study").probabilities(logits), fitted.threshold)
    assert expected is not None
    assert (fitted.uncertain_low, fitted.uncertain_high) == pytest.approx(expected)


def test_a_sensitivity_is_stored_with_its_bound():
    labels, logits = draw(200)
    fitted = fit_calibration(one_view(labels, logits), rule="sensitivity>=0.8")
    called = fitted.scaling("study").probabilities(logits) >= fitted.threshold
    assert 0.8 <= fitted.sensitivity_bound < called[labels == 1].mean()
    assert fit_calibration(one_view(labels, logits)).sensitivity_bound is None


def test_another_prevalence_shifts_probabilities_and_changes_no_call():
    labels, logits = draw(2000, temperature=2, intercept=-0.85, prevalence=0.3)
    fitted = fit_calibration(one_view(labels, logits))
    rare, (few, many) = fitted.at_prevalence(0.1), draw(20_000, temperature=2, intercept=-0.85, prevalence=0.3, seed=2)
    kept = np.random.default_rng(3).random(20_000) < np.where(few == 1, (0.1 / 0.9) / (0.3 / 0.7), 1)
    before, after = (one.scaling("study").probabilities(many[kept]) for one in (fitted, rare))
    assert few[kept].mean() == pytest.approx(0.1, abs=0.01)
    assert before.mean() > 0.2
    assert after.mean() == pytest.approx(0.1, abs=0.015)
    assert ((before >= fitted.threshold) == (after >= rare.threshold)).all()
    assert ((before >= fitted.uncertain_low) == (after >= rare.uncertain_low)).all()


def test_a_shift_can_be_undone_and_starts_from_the_shifted_share():
    fitted = Calibration(method="slope and intercept", prevalence=0.3, threshold=0.4)
    back = fitted.at_prevalence(0.1).at_prevalence(0.3)
    assert (back.threshold, back.study_intercept) == pytest.approx((0.4, 0))


@pytest.mark.parametrize(("share", "message"), [(0.0, "expected a share above 0"), (0.1, "temperature alone")])
def test_an_impossible_prevalence_is_refused(share, message):
    with pytest.raises(SettingsError, match=message):
        Calibration(threshold=0.4).at_prevalence(share)


OLD = {
    "image_temperature": 1.3,
    "study_temperature": 1.7,
    "threshold": 0.31,
    "rule": "sensitivity>=0.9",
    "uncertain_low": 0.2,
    "uncertain_high": 0.4,
    "reason": None,
}


def test_a_temperature_of_an_earlier_version_gives_the_same_probabilities():
    old = Calibration.from_dict(OLD)
    logits = np.random.default_rng(0).normal(0, 5, 1000)
    assert (old.scaling("study").probabilities(logits) == sigmoid(logits / 1.7)).all()
    assert (old.method, old.prevalence, old.sensitivity_bound) == ("temperature", None, None)


def test_a_calibration_that_records_no_weight_of_the_labels_can_be_read():
    stored = Calibration(study_intercept=-0.4, method="slope and intercept", threshold=0.31).to_dict()
    del stored["threshold_weight"]
    assert Calibration.from_dict(stored).threshold_weight is None


def test_a_calibration_can_be_stored():
    stored = Calibration(study_temperature=1.7, study_intercept=-0.4, threshold=0.31, warnings=("Rough.",))
    assert Calibration.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


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
    with pytest.raises(SettingsError, match="Unknown calibration method 'isotonic'"):
        Calibration(method="isotonic")
    with pytest.raises(SettingsError, match="An intercept must be a finite number; got nan"):
        Scaling(intercept=float("nan"))
