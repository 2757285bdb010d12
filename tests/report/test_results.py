"""The table of results and the sentences: right numbers, or a reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.bootstrap import bootstrap
from muralab.evaluation.calibration import Calibration
from muralab.report import (
    Entry,
    difference_sentences,
    results_table,
    winner_of,
)
from muralab.report.judge import judge
from muralab.report.sentences import headline, number

MakeEntry = Callable[..., Entry]
MakePredictions = Callable[..., pd.DataFrame]
N_RESAMPLES = 100


def test_results_have_a_row_a_recipe_and_phase(entry: MakeEntry) -> None:
    table = results_table([entry("cnn", from_scratch=True), entry("inception")], n_resamples=N_RESAMPLES)
    assert list(zip(table["recipe"], table["phase"])) == [
        ("cnn", "full"),
        ("inception", "upper"),
        ("inception", "full"),
    ]


def test_results_show_test_figures_after_the_full_phase_only(entry: MakeEntry) -> None:
    upper, full = results_table([entry()], n_resamples=N_RESAMPLES).to_dict("records")
    assert np.isnan(upper["test_image_accuracy"])
    assert np.isnan(upper["test_study_auroc"])
    assert "full phase only" in upper["note"]
    assert (full["test_image_loss"], full["test_image_accuracy"], full["test_studies"]) == (0.61, 0.72, 40)


def test_results_are_judged_at_the_own_threshold(entry: MakeEntry) -> None:
    one = entry(calibration=Calibration(threshold=0.99))
    low, high = (results_table([e], n_resamples=N_RESAMPLES).iloc[-1]["test_study_kappa"] for e in (one, entry()))
    assert low < high


def test_bounds_are_those_of_the_runs_own_metrics(entry: MakeEntry) -> None:
    one = entry()
    assert one.test is not None
    logged = bootstrap(one.test, level="study", metrics=["auroc"], n_resamples=N_RESAMPLES)["auroc"]
    assert judge(one, metrics=["auroc"], n_resamples=N_RESAMPLES).intervals["auroc"].low == logged.low


def test_results_of_one_class_are_nan_with_a_reason(entry: MakeEntry, predictions: MakePredictions) -> None:
    row = results_table([entry(test=predictions(1.0, one_class=True))], n_resamples=N_RESAMPLES).iloc[-1]
    assert np.isnan(row["test_study_auroc"])
    assert "class" in row["note"] or "abnormal" in row["note"]


def test_missing_logits_become_a_reason_not_a_number(entry: MakeEntry, predictions: MakePredictions) -> None:
    judged = judge(entry(test=predictions(1.0).assign(logit=np.nan)), n_resamples=N_RESAMPLES)
    assert not judged.intervals
    assert "logit" in str(judged.reason)
    assert "no test figures" in headline(judged)


def test_empty_predictions_become_a_reason(entry: MakeEntry, predictions: MakePredictions) -> None:
    judged = judge(entry(test=predictions(1.0).iloc[:0]), n_resamples=N_RESAMPLES)
    assert judged.n_studies == 0
    assert "empty" in str(judged.reason)


def test_clear_difference_excludes_zero(entry: MakeEntry) -> None:
    (sentence,) = difference_sentences([entry("poor", skill=0.0), entry("good", skill=3.0)], n_resamples=N_RESAMPLES)
    assert sentence.startswith("Poor against Good: paired difference −0.")
    assert sentence.endswith("lower, the interval excludes 0.")


def test_small_difference_is_not_resolved(entry: MakeEntry, predictions: MakePredictions) -> None:
    test = predictions(1.0, seed=2)
    noise = np.random.default_rng(0).normal(size=len(test))
    other = entry("same", test=test.assign(logit=test["logit"] + 0.5 * noise), objective=0.0)
    (sentence,) = difference_sentences([entry("good", skill=1.0), other], n_resamples=N_RESAMPLES)
    assert "not resolved, the interval contains 0" in sentence


def test_other_test_set_is_not_compared(entry: MakeEntry, predictions: MakePredictions) -> None:
    other = entry("other", test=predictions(1.0, n_patients=30), objective=0.0)
    (sentence,) = difference_sentences([entry(), other], n_resamples=N_RESAMPLES)
    assert "not compared (The two models were judged on different images" in sentence


def test_untested_model_is_not_compared(entry: MakeEntry) -> None:
    (sentence,) = difference_sentences([entry(), entry("new", test=None, objective=0.0)], n_resamples=N_RESAMPLES)
    assert "New: this model has not met the test set" in sentence


def test_winner_is_chosen_by_validation_not_by_test(entry: MakeEntry, predictions: MakePredictions) -> None:
    lucky = entry("lucky", skill=0.1, test=predictions(5.0))
    assert getattr(winner_of([lucky, entry("good")]), "name", None) == "good"
    assert winner_of([]) is None


def test_without_a_score_no_order_makes_a_winner(entry: MakeEntry) -> None:
    unknown = [entry(name, objective=float("nan"), history=pd.DataFrame()) for name in ("first", "second")]
    assert winner_of(unknown) is None
    assert winner_of(unknown[:1]) is unknown[0]
    assert getattr(winner_of([*unknown, entry("good")]), "name", None) == "good"


@pytest.mark.parametrize(
    ("value", "text"), [(-0.25, "−0.250"), (0.0, "0.000"), (-0.0003, "−0.0003"), (float("nan"), "–")]
)
def test_numbers_are_set_well(value: float, text: str) -> None:
    assert number(value) == text
