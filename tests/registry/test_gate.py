"""The gate's decision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from muralab.errors import DataError, SettingsError
from muralab.evaluation.bootstrap import Interval
from muralab.evaluation.calibration import Calibration
from muralab.registry import gate
from muralab.registry.gate import Contender, Margins, Verdict, decide, read_objective, refusal


def contender(test: pd.DataFrame, title: str = "version 1", **calibration: float) -> Contender:
    return Contender(title=title, test=test, calibration=Calibration(**calibration))


def test_a_first_champion_that_beats_chance_is_accepted(make_test):
    verdict = decide(contender(make_test(1.0)), None)
    assert verdict.accepted
    assert verdict.interval.low > 0.5


def test_a_first_champion_must_beat_chance(make_test):
    verdict = decide(contender(make_test(0.0)), None)
    assert not verdict.accepted
    assert "does not lie above 0.5" in verdict.reasons[0]


def test_constant_predictions_do_not_beat_chance(make_test):
    assert not decide(contender(make_test(1.0).assign(logit=0.3)), None).accepted


def test_one_class_is_refused_with_its_reason(make_test):
    table = make_test(1.0)
    verdict = decide(contender(table[table["label"] == 0]), None)
    assert not verdict.accepted
    assert "abnormal" in verdict.reasons[0]


def test_a_better_model_replaces_the_champion(make_test):
    verdict = decide(contender(make_test(1.5)), contender(make_test(0.5)))
    assert verdict.accepted
    assert verdict.interval.estimate > 0
    assert len(verdict.reasons) == 4


def test_a_worse_model_is_refused_and_told_why(make_test):
    verdict = decide(contender(make_test(0.3)), contender(make_test(1.5), "version 7"))
    assert not verdict.accepted
    assert "against version 7: paired difference -0." in verdict.reasons[0]
    assert "reaches below the margin of -0.050" in verdict.reasons[1]


def test_a_threshold_of_studies_is_not_used_on_images(make_test):
    test = make_test(1.0)
    verdict = decide(contender(test, threshold=0.9), contender(test, threshold=0.5), objective="val_accuracy")
    assert verdict.interval.estimate == 0


def test_the_same_model_is_not_lower_than_itself(make_test):
    assert decide(contender(make_test(1.0)), contender(make_test(1.0))).accepted


def test_a_wide_interval_refuses_a_slightly_better_model(make_test):
    better, champion = make_test(0.25, seed=1, n_patients=30), make_test(0.2, seed=3, n_patients=30)
    verdict = decide(contender(better), contender(champion))
    assert verdict.interval.estimate >= 0
    assert not verdict.accepted
    assert decide(contender(better), contender(champion), margins=Margins(objective=1, sensitivity=1)).accepted


def test_lost_sensitivity_refuses_a_model_that_ranks_as_well(make_test):
    verdict = decide(contender(make_test(1.0), threshold=0.9), contender(make_test(1.0), threshold=0.5))
    assert [r.split(" gets")[0] for r in verdict.reasons] == ["Sensitivity of studies"]


def test_lost_calibration_refuses_a_model_that_ranks_as_well(make_test):
    sure = contender(make_test(0.4), study_temperature=0.05)
    verdict = decide(sure, contender(make_test(0.4)))
    assert ["Brier score" in reason for reason in verdict.reasons] == [True]


def test_a_part_that_gets_worse_refuses_the_whole(make_test):
    wrist, hand = make_test(1.5), make_test(1.0, part="hand", first=500)
    poor = make_test(0.2, part="hand", first=500)
    verdict = decide(
        contender(pd.concat([wrist, poor])),
        contender(pd.concat([make_test(0.2), hand])),
        margins=Margins(objective=1, sensitivity=1, brier=1),
    )
    assert ["on the hand (80 studies)" in reason for reason in verdict.reasons] == [True]


def test_a_part_of_one_class_is_no_guard(make_test):
    hand = make_test(1.0, part="hand", first=500)
    hand = hand[hand["label"] == 0]
    better, champion = (pd.concat([make_test(skill), hand]) for skill in (1.5, 0.5))
    verdict = decide(contender(better), contender(champion), margins=Margins(objective=1, sensitivity=1, brier=1))
    assert verdict.accepted
    assert "on the hand (40 studies): not compared (all 40 rows are normal" in str(verdict)


# Each margin, from either side


def differs(estimate: float, low: float = -0.01, high: float = 0.01) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, n_resamples=100, reason="so it was given")


@pytest.fixture
def judge(make_test, monkeypatch) -> Callable[..., Verdict]:
    """The gate's decision about given differences by metric, and of the objective on a hand of so many studies."""

    def decided(
        objective: str = "val_study_auroc", *, hand: float = 0.0, n_hand: int = 0, **given: Interval
    ) -> Verdict:
        def difference(table: pd.DataFrame, _: pd.DataFrame, *, metric: str, **__: object) -> Interval:
            return differs(hand) if (table["part"] == "hand").all() else given.get(metric, differs(0.0))

        monkeypatch.setattr(gate, "paired_difference", difference)
        test = pd.concat([make_test(1.0), make_test(1.0, part="hand", first=500, n_patients=n_hand)])
        return decide(contender(test), contender(test), objective=objective)

    return decided


@pytest.mark.parametrize(("estimate", "accepted"), [(0.0, True), (-0.001, False), (-0.04, False), (np.nan, False)])
def test_the_objective_must_not_be_lower(judge, estimate, accepted):
    assert judge(auroc=differs(estimate)).accepted == accepted


@pytest.mark.parametrize(("low", "accepted"), [(-0.049, True), (-0.05, False), (-0.051, False), (np.nan, False)])
def test_the_interval_must_not_reach_the_margin(judge, low, accepted):
    assert judge(auroc=differs(0.01, low)).accepted == accepted


@pytest.mark.parametrize(
    ("found", "accepted"),
    [
        (differs(-0.01, -0.2, 0.049), True),
        (differs(-0.01, -0.2, 0.051), False),
        (differs(0.001, -0.2, 0.049), False),
    ],
)
def test_of_a_loss_the_upper_end_counts(judge, found, accepted):
    assert judge("val_study_log_loss", log_loss=found).accepted == accepted


@pytest.mark.parametrize(("change", "accepted"), [(-0.049, True), (-0.051, False), (0.3, True), (np.nan, False)])
def test_sensitivity_may_fall_by_its_margin(judge, change, accepted):
    verdict = judge(sensitivity=differs(change))
    assert verdict.accepted == accepted
    assert accepted or ["Sensitivity of studies" in reason for reason in verdict.reasons] == [True]


@pytest.mark.parametrize(("change", "accepted"), [(0.019, True), (0.021, False), (-0.3, True), (np.nan, False)])
def test_the_brier_score_may_rise_by_its_margin(judge, change, accepted):
    verdict = judge(brier=differs(change))
    assert verdict.accepted == accepted
    assert accepted or ["Brier score of studies" in reason for reason in verdict.reasons] == [True]


@pytest.mark.parametrize(
    ("change", "n_studies", "accepted"), [(-0.049, 20, True), (-0.051, 20, False), (-0.5, 19, True)]
)
def test_a_part_of_twenty_studies_may_fall_by_its_margin(judge, change, n_studies, accepted):
    assert judge(hand=change, n_hand=n_studies).accepted == accepted


def test_different_images_are_refused_as_a_mistake(make_test):
    with pytest.raises(DataError, match="judged on different images"):
        decide(contender(make_test(1.0)), contender(make_test(1.0, first=900)))


def test_nan_logits_are_refused_as_a_mistake(make_test):
    with pytest.raises(DataError, match="have no finite logit"):
        decide(contender(make_test(1.0).assign(logit=np.nan)), None)


def test_too_few_patients_give_no_interval_and_no_champion(make_test):
    verdict = decide(contender(make_test(1.5, n_patients=6)), contender(make_test(0.5, n_patients=6)))
    assert not verdict.accepted
    assert "6 patients are too few" in verdict.reasons[0]


def test_objectives_name_level_and_metric():
    assert read_objective("val_study_auroc") == ("study", "auroc")
    assert read_objective("val_average_precision") == ("image", "average_precision")


def test_an_unknown_objective_is_named():
    with pytest.raises(SettingsError, match="auroc"):
        read_objective("val_study_aurocc")


def test_an_impossible_margin_is_named():
    with pytest.raises(SettingsError, match=r"margin for sensitivity must lie in \[0, 1\]; got -0.1"):
        Margins(sensitivity=-0.1)


def test_a_refusal_says_so():
    assert str(refusal("No data.")) == "refused: No data."
