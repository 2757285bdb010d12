"""The table of results: right numbers, or a reason."""

from __future__ import annotations

import numpy as np

from muralab.evaluation.calibration import Calibration
from muralab.evaluation.intervals import metric_intervals
from muralab.report.results_table import results_table


def test_results_have_a_row_per_recipe_and_phase(build_model) -> None:
    table = results_table([build_model("cnn", training={"from_scratch": True}), build_model("inception")])
    assert [*zip(table["recipe"], table["phase"])] == [("cnn", "full"), ("inception", "upper"), ("inception", "full")]


def test_results_have_test_values_after_the_full_phase_only(build_model) -> None:
    upper, full = results_table([build_model()]).to_dict("records")
    assert np.isnan(upper["test_image_accuracy"])
    assert np.isnan(upper["test_study_auroc"])
    assert "those of the full phase" in upper["note"]
    assert (full["test_image_loss"], full["test_image_accuracy"], full["test_studies"]) == (0.61, 0.72, 40)


def test_the_phase_whose_weights_were_kept_has_the_test_values(build_model) -> None:
    upper, full = results_table([build_model(training={"kept_phase": "upper"})]).to_dict("records")
    assert (upper["test_image_loss"], upper["test_image_accuracy"], upper["test_studies"]) == (0.61, 0.72, 40)
    assert np.isnan([full["test_image_loss"], full["test_study_auroc"], full["threshold"]]).all()
    assert "those of the upper phase" in full["note"]


def test_the_test_values_of_an_ensemble_are_in_its_last_row_whichever_phases_were_kept(build_model) -> None:
    upper, full = results_table([build_model(training={"kept_phase": "mixed"})]).to_dict("records")
    assert (np.isnan(upper["test_image_loss"]), full["test_image_loss"]) == (True, 0.61)
    assert "each network's, of one phase or the other" in upper["note"]


def test_the_mode_in_which_the_training_images_were_measured_is_a_column(build_model) -> None:
    evaluated = {"full_eval_train_loss": 0.41, "full_eval_train_accuracy": 0.8}
    summary = {**evaluated, "full_train_loss": 0.6, "upper_train_loss": 0.7}
    upper, full = results_table([build_model(training={"summary": summary})]).to_dict("records")
    assert (upper["train_image_loss"], upper["train_mode"]) == (0.7, "training")
    assert (full["train_image_loss"], full["train_mode"]) == (0.41, "evaluation")


def test_a_network_from_scratch_has_an_upper_row_if_its_warm_up_was_kept(build_model) -> None:
    table = results_table([build_model("cnn", training={"from_scratch": True, "kept_phase": "upper"})])
    assert list(table["phase"]) == ["upper", "full"]


def test_results_are_at_the_models_own_threshold(build_model) -> None:
    models = [build_model(calibration=Calibration(threshold=0.99)), build_model()]
    low, high = (results_table([model]).iloc[-1]["test_study_kappa"] for model in models)
    assert low < high


def test_bounds_equal_those_of_the_table_of_predictions(build_model) -> None:
    model = build_model()
    expected = metric_intervals(model.test, level="study", metrics=["auroc"])["auroc"]
    row = results_table([model]).iloc[-1]
    assert (row["test_study_auroc_low"], row["test_study_auroc_high"]) == (expected.low, expected.high)


def test_results_of_one_class_are_nan_with_a_reason(build_model, build_predictions) -> None:
    row = results_table([build_model(test=build_predictions(1.0, one_class=True))]).iloc[-1]
    assert np.isnan(row["test_study_auroc"])
    assert "auroc: all 40 rows are normal" in row["note"]


def test_unusable_predictions_are_nan_with_a_reason(build_model, build_predictions) -> None:
    row = results_table([build_model(test=build_predictions(1.0).iloc[:0])]).iloc[-1]
    assert np.isnan(row["test_study_auroc"])
    assert row["test_studies"] == 0
    assert "The predictions are empty" in row["note"]


def test_without_validation_predictions_the_logged_value_is_shown(build_model) -> None:
    model = build_model(validation=None, training={"summary": {"full_val_study_auroc": 0.7}})
    row = results_table([model]).iloc[-1]
    assert row["validation_study_auroc"] == 0.7
    assert np.isnan(row["validation_study_auroc_low"])
