"""Sentences that can be quoted: numbers, the headline, differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from muralab.evaluation.calibration import Calibration
from muralab.evaluation.intervals import Interval
from muralab.report.sentences import (
    calibration_notes,
    calibration_sentence,
    difference_sentences,
    headline,
    kept_weights,
    number,
    with_bounds,
)
from muralab.report.verdict import registered_sentence

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"), [(-0.25, "−0.250"), (0.0, "0.000"), (-0.0003, "−0.0003"), (float("nan"), "–")]
)
def test_numbers_are_formatted(value, text) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(estimate=0.5, low=0.4, high=0.6, n_resamples=2000), "0.500 [0.400, 0.600]"),
        (Interval(estimate=0.5, low=NAN, high=NAN, n_resamples=0, reason="too few"), "0.500 (no interval: too few)"),
        (Interval(estimate=NAN, low=NAN, high=NAN, n_resamples=0, reason="one class"), "– (one class)"),
    ],
)
def test_intervals_are_formatted(interval, text) -> None:
    assert with_bounds(interval) == text


def test_the_headline_states_the_size_of_the_test_set(build_model) -> None:
    sentence = headline(build_model(skill=0.5))
    assert sentence.startswith("Good reaches a study-level test AUROC of 0.")
    assert "(40 studies of 40 patients; 95% patient-clustered intervals)" in sentence


REACHED = {"upper_val_study_auroc": 0.910, "full_val_study_auroc": 0.883}


@pytest.mark.parametrize(
    ("kept", "values", "text"),
    [
        ("upper", {"kept_phase": "best"}, "upper phase (the phase that validated better; "),
        ("full", {"kept_phase": "full"}, "full phase (kept_phase=full takes the full phase; "),
        ("", {}, "full phase (the version that logged this run always took the full phase; "),
    ],
)
def test_the_phase_of_the_weights_is_stated_with_its_reason(build_model, kept, values, text) -> None:
    model = build_model(training={"summary": REACHED, "kept_phase": kept, "values": values})
    sentence = kept_weights(model, "val_study_auroc")
    assert sentence.startswith(f"The weights are those of the best epoch of the {text}")
    assert sentence.endswith("val_study_auroc: upper 0.910, full 0.883).")


def test_an_evaluated_model_names_the_phase_of_its_weights(build_model) -> None:
    model = build_model(training={"summary": {}, "kept_phase": "upper"})
    assert kept_weights(model, "val_auroc") == "The weights are those of the best epoch of the upper phase."


def test_an_ensemble_of_networks_that_kept_different_phases_does_not_name_one(build_model) -> None:
    sentence = kept_weights(build_model(training={"summary": {}, "kept_phase": "mixed"}), "val_auroc")
    assert sentence == (
        "The weights of each network are those of the best epoch of the phase in which it validated better."
    )


def test_a_headline_without_test_results_has_the_reason(build_model, build_predictions) -> None:
    broken = build_model(test=build_predictions(1.0).assign(logit=np.nan))
    assert headline(broken).startswith("Good has no test results: 80 of 80 predicted images have no finite logit")


FITTED = Calibration(method="slope and intercept", study_intercept=-0.85, prevalence=0.3, n_studies=191)


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        (None, "uncalibrated, at 0.5: no calibration was fitted"),
        (
            Calibration(reason="all 3 validation studies are normal"),
            "nothing could be fitted (all 3 validation studies",
        ),
        (Calibration(study_temperature=1.7), "calibrated in an earlier version by a temperature alone (images 1.000"),
        (FITTED, "studies 1.000 and −0.850) on 191 validation studies, of which 30.0% are abnormal"),
        (FITTED.at_prevalence(0.1), "shifted to a share of 10.0% abnormal studies"),
        (Calibration(rule="sensitivity>=0.9"), "met on the validation studies only, without a confidence bound"),
        (replace(FITTED, rule="sensitivity>=0.9", sensitivity_bound=0.912), "sensitivity on new patients: 0.912"),
        (replace(FITTED, uncertain_low=0.2, uncertain_high=0.4), "the 20% of studies nearest to the threshold"),
        (Calibration(uncertain_low=0.2, uncertain_high=0.4), "chosen in an earlier version by the error rate"),
    ],
)
def test_the_calibration_is_described(build_model, calibration, text) -> None:
    assert text in calibration_sentence(build_model(calibration=calibration))


def test_a_warning_of_all_models_is_stated_once(build_model) -> None:
    rough, worse = Calibration(warnings=("Rough.",)), Calibration(warnings=("Rough.", "At a bound."))
    models = [build_model("good", calibration=rough), build_model("poor", calibration=worse)]
    assert calibration_notes(models) == ["Both models: Rough.", "Poor: At a bound."]
    assert calibration_notes([*models, build_model("new")])[0] == "Good, Poor: Rough."


def test_a_clear_difference_excludes_zero(build_model) -> None:
    (sentence,) = difference_sentences([build_model("poor", skill=0.0), build_model("good", skill=3.0)])
    assert sentence.startswith("Poor against Good: paired difference −0.")
    assert sentence.endswith("lower, the interval excludes 0.")


def test_a_small_difference_is_not_resolved(build_model, build_predictions) -> None:
    test = build_predictions(1.0, seed=2)
    noise = np.random.default_rng(0).normal(size=len(test))
    other = build_model("same", test=test.assign(logit=test["logit"] + 0.5 * noise), objective=0.0)
    (sentence,) = difference_sentences([build_model("good", skill=1.0), other])
    assert "not resolved, the interval contains 0" in sentence


def test_several_comparisons_are_counted(build_model) -> None:
    models = [build_model(name, skill=skill) for name, skill in (("good", 3.0), ("fair", 1.0), ("poor", 0.0))]
    *differences, count = difference_sentences(models)
    assert len(differences) == 2
    assert count.startswith("These 2 comparisons are not adjusted")
    assert "in up to 10% of" in count


def test_a_model_that_is_not_compared_is_not_counted(build_model) -> None:
    models = [build_model(), build_model("poor", skill=0.0), build_model("new", test=None, objective=0.0)]
    assert len(difference_sentences(models)) == 2


def test_models_on_different_test_sets_are_not_compared(build_model, build_predictions) -> None:
    other = build_model("other", test=build_predictions(1.0, n_patients=30), objective=0.0)
    (sentence,) = difference_sentences([build_model(), other])
    assert "not compared (The two models were evaluated on different images" in sentence


def test_an_untested_model_is_not_compared(build_model) -> None:
    (sentence,) = difference_sentences([build_model(), build_model("new", test=None, objective=0.0)])
    assert "New: this model was not evaluated on the test set" in sentence


@pytest.mark.parametrize(
    ("champion", "sentence"),
    [
        ("", ""),
        (None, "No model was registered."),
        ("version 3", "Registered model: version 3."),
        ("good", "The registered model is Good, which is best on validation."),
        ("run-good", "The registered model is Good, which is best on validation."),
    ],
)
def test_the_registered_model_is_named(build_model, champion, sentence) -> None:
    assert registered_sentence([build_model("poor", skill=0.3), build_model("good")], champion) == sentence
