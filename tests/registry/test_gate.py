"""The gate's decision: on simulated predictions, at each margin, and properties that hold for any input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muralab.errors import DataError, SettingsError
from muralab.evaluation.bootstrap import Interval
from muralab.evaluation.evaluated_model import paired_difference
from muralab.registry.gate import (
    Differences,
    Margins,
    apply_margins,
    decide,
    measure_differences,
    read_objective,
    refusal,
)
from tests.registry.conftest import build_model, build_test

WIDE = Margins(objective=1, sensitivity=1, brier=1)

# Without a champion


def test_a_first_champion_that_beats_chance_is_accepted():
    decision = decide(build_model(build_test(1.0)), None)
    assert decision.accepted
    assert decision.interval.low > 0.5


def test_a_first_champion_must_beat_chance():
    decision = decide(build_model(build_test(0.0)), None)
    assert not decision.accepted
    assert "does not lie above 0.5" in decision.reasons[0]


def test_constant_predictions_do_not_beat_chance():
    assert not decide(build_model(build_test(1.0).assign(logit=0.3)), None).accepted


def test_a_test_set_of_one_class_is_refused_with_the_reason():
    table = build_test(1.0)
    decision = decide(build_model(table[table["label"] == 0]), None)
    assert not decision.accepted
    assert "abnormal" in decision.reasons[0]


# Against a champion


def test_a_better_model_replaces_the_champion():
    decision = decide(build_model(build_test(1.5)), build_model(build_test(0.5)))
    assert decision.accepted
    assert decision.interval.estimate > 0
    assert len(decision.reasons) == 4


def test_a_worse_model_is_refused_with_both_reasons():
    decision = decide(build_model(build_test(0.3)), build_model(build_test(1.5), "version 7"))
    assert not decision.accepted
    assert "against version 7: paired difference -0." in decision.reasons[0]
    assert "does not lie above the margin of -0.050" in decision.reasons[1]


def test_the_study_threshold_is_not_applied_to_images():
    test = build_test(1.0)
    a, b = build_model(test, threshold=0.9), build_model(test, threshold=0.5)
    assert decide(a, b, objective="val_accuracy").interval.estimate == 0


def test_each_difference_is_that_of_its_metric_and_level():
    a, b = build_model(build_test(1.2), threshold=0.7), build_model(build_test(1.0), study_temperature=2.0)
    found = measure_differences(a, b, "image", "log_loss")
    assert found.objective == paired_difference(a, b, metric="log_loss", level="image")
    assert found.sensitivity == paired_difference(a, b, metric="sensitivity", level="study")
    assert found.brier == paired_difference(a, b, metric="brier", level="study")


def test_a_wide_interval_refuses_a_slightly_better_model():
    better = build_model(build_test(0.25, seed=1, n_patients=30))
    champion = build_model(build_test(0.2, seed=3, n_patients=30))
    decision = decide(better, champion)
    assert decision.interval.estimate >= 0
    assert not decision.accepted
    assert decide(better, champion, margins=Margins(objective=1, sensitivity=1)).accepted


def test_lost_sensitivity_refuses_a_model_with_the_same_ranking():
    test = build_test(1.0)
    decision = decide(build_model(test, threshold=0.9), build_model(test, threshold=0.5))
    assert [reason.split(" gets")[0] for reason in decision.reasons] == ["Sensitivity of studies"]


def test_lost_calibration_refuses_a_model_with_the_same_ranking():
    test = build_test(0.4)
    decision = decide(build_model(test, study_temperature=0.05), build_model(test))
    assert ["Brier score" in reason for reason in decision.reasons] == [True]


def test_a_loss_on_one_part_refuses_the_model():
    candidate = pd.concat([build_test(1.5), build_test(0.2, part="hand", first=500)])
    champion = pd.concat([build_test(0.2), build_test(1.0, part="hand", first=500)])
    decision = decide(build_model(candidate), build_model(champion), margins=WIDE)
    assert ["on the hand (80 studies)" in reason for reason in decision.reasons] == [True]


@pytest.mark.parametrize(("n_studies", "accepted"), [(19, True), (20, False)])
def test_a_part_counts_from_twenty_studies(n_studies, accepted):
    def model(wrist: float, hand: float):
        parts = [build_test(wrist), build_test(hand, part="hand", first=500, n_patients=n_studies)]
        return build_model(pd.concat(parts))

    assert decide(model(1.5, 0.0), model(0.2, 2.0), margins=WIDE).accepted == accepted


def test_a_part_of_one_class_is_not_compared():
    hand = build_test(1.0, part="hand", first=500).query("label == 0")
    better, champion = (build_model(pd.concat([build_test(skill), hand])) for skill in (1.5, 0.5))
    decision = decide(better, champion, margins=WIDE)
    assert decision.accepted
    assert "on the hand (40 studies): not compared (all 40 rows are normal" in str(decision)


def test_different_test_images_raise_an_error():
    with pytest.raises(DataError, match="different images"):
        decide(build_model(build_test(1.0)), build_model(build_test(1.0, first=900)))


@pytest.mark.parametrize("champion", [None, build_model(build_test(1.0))])
def test_nan_logits_raise_an_error(champion):
    with pytest.raises(DataError, match=r"version 2: .*have no finite logit"):
        decide(build_model(build_test(1.0).assign(logit=np.nan), "version 2"), champion)


def test_too_few_patients_refuse_the_model():
    decision = decide(build_model(build_test(1.5, n_patients=6)), build_model(build_test(0.5, n_patients=6)))
    assert not decision.accepted
    assert "6 patients are too few" in decision.reasons[0]


# Each margin, from either side


def interval(estimate: float, low: float = -0.01, high: float = 0.01) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, n_resamples=100, reason="the reason")


def differences(metric: str = "auroc", **found: Interval) -> Differences:
    equal = {"objective": interval(0.0), "sensitivity": interval(0.0), "brier": interval(0.0)}
    return Differences(level="study", metric=metric, champion="version 1", **equal | found)


@pytest.mark.parametrize(
    ("estimate", "accepted"), [(0.0, True), (-1e-8, True), (-0.001, False), (-0.04, False), (np.nan, False)]
)
def test_the_objective_must_not_be_lower(estimate, accepted):
    assert apply_margins(differences(objective=interval(estimate)), Margins()).accepted == accepted


@pytest.mark.parametrize(("low", "accepted"), [(-0.049, True), (-0.05, False), (-0.051, False), (np.nan, False)])
def test_the_lower_end_must_lie_above_the_margin(low, accepted):
    assert apply_margins(differences(objective=interval(0.01, low)), Margins()).accepted == accepted


@pytest.mark.parametrize(
    ("found", "accepted"),
    [
        (interval(-0.01, -0.2, 0.049), True),
        (interval(-0.01, -0.2, 0.051), False),
        (interval(0.001, -0.2, 0.049), False),
    ],
)
def test_the_upper_end_counts_where_lower_is_better(found, accepted):
    assert apply_margins(differences("log_loss", objective=found), Margins()).accepted == accepted


@pytest.mark.parametrize(("change", "accepted"), [(-0.05, True), (-0.051, False), (0.3, True), (np.nan, False)])
def test_sensitivity_may_drop_by_its_margin(change, accepted):
    decision = apply_margins(differences(sensitivity=interval(change)), Margins())
    assert decision.accepted == accepted
    assert accepted or ["Sensitivity of studies" in reason for reason in decision.reasons] == [True]


@pytest.mark.parametrize(("change", "accepted"), [(0.02, True), (0.021, False), (-0.3, True), (np.nan, False)])
def test_the_brier_score_may_rise_by_its_margin(change, accepted):
    decision = apply_margins(differences(brier=interval(change)), Margins())
    assert decision.accepted == accepted
    assert accepted or ["Brier score of studies" in reason for reason in decision.reasons] == [True]


@pytest.mark.parametrize(
    ("metric", "change", "accepted"),
    [("auroc", -0.049, True), ("auroc", -0.051, False), ("log_loss", 0.049, True), ("log_loss", 0.051, False)],
)
def test_the_objective_on_a_part_may_get_worse_by_its_margin(metric, change, accepted):
    found = differences(metric, parts={"hand (80 studies)": interval(change)})
    assert apply_margins(found, Margins()).accepted == accepted


# Properties

SHARES = st.floats(0, 1)
CHANGES = st.floats(-1, 1) | st.just(np.nan)
INTERVALS = st.tuples(CHANGES, SHARES, SHARES).map(lambda f: interval(f[0], f[0] - f[1], f[0] + f[2]))
DIFFERENCES = st.builds(
    Differences,
    level=st.just("study"),
    metric=st.sampled_from(["auroc", "kappa", "log_loss"]),
    champion=st.just("version 1"),
    objective=INTERVALS,
    sensitivity=INTERVALS,
    brier=INTERVALS,
    parts=st.dictionaries(st.sampled_from(["hand (80 studies)", "wrist (20 studies)"]), INTERVALS),
)
MARGINS = st.builds(Margins, objective=SHARES, sensitivity=SHARES, part=SHARES, brier=SHARES)


@given(DIFFERENCES, MARGINS, MARGINS)
def test_wider_margins_accept_whatever_narrower_ones_accept(found, a, b):
    names = ("objective", "sensitivity", "part", "brier")
    narrow, wide = (Margins(**{n: pick(getattr(a, n), getattr(b, n)) for n in names}) for pick in (min, max))
    assert apply_margins(found, wide).accepted >= apply_margins(found, narrow).accepted


@given(DIFFERENCES, MARGINS)
def test_every_decision_has_a_reason(found, margins):
    decision = apply_margins(found, margins)
    assert decision.reasons
    assert decision.accepted == all(check.passed for check in decision.checks)


@settings(max_examples=10, deadline=None)
@given(st.floats(-2, 3), st.floats(0, 1), st.floats(0.1, 10), st.sampled_from(["val_study_auroc", "val_log_loss"]))
def test_any_model_may_replace_an_equal_one(skill, threshold, temperature, objective):
    test = build_test(skill)
    a, b = (build_model(test, threshold=threshold, study_temperature=temperature) for _ in range(2))
    assert decide(a, b, objective=objective).accepted


@settings(max_examples=10, deadline=None)
@given(st.floats(-1, 2), st.floats(-1, 2))
def test_swapping_the_two_models_reverses_the_difference(skill_a, skill_b):
    a, b = build_model(build_test(skill_a)), build_model(build_test(skill_b))
    forth, back = decide(a, b).interval, decide(b, a).interval
    assert forth.estimate == pytest.approx(-back.estimate, abs=1e-12)


# Objectives and margins


@pytest.mark.parametrize(
    ("name", "expected"),
    [("val_study_auroc", ("study", "auroc")), ("val_average_precision", ("image", "average_precision"))],
)
def test_an_objective_names_level_and_metric(name, expected):
    assert read_objective(name) == expected


def test_an_unknown_objective_raises_an_error():
    with pytest.raises(SettingsError, match="auroc"):
        read_objective("val_study_aurocc")


def test_a_margin_outside_its_range_raises_an_error():
    with pytest.raises(SettingsError, match=r"margin for sensitivity must lie in \[0, 1\]; got -0.1"):
        Margins(sensitivity=-0.1)


def test_a_refusal_carries_its_reason():
    assert str(refusal("No data.")) == "refused: No data."
