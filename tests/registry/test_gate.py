"""The gate's decision: on simulated predictions, at each margin, and properties that hold for any input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muralab.errors import DataError, SettingsError
from muralab.evaluation.evaluated_model import paired_difference
from muralab.evaluation.intervals import Interval
from muralab.registry.gate import (
    Decision,
    Differences,
    Margins,
    apply_margins,
    decide,
    measure_differences,
    read_objective,
    refusal,
)
from tests.registry.conftest import build_model, build_test

WIDE = Margins(objective=1, sensitivity=1, specificity=1, kappa=1, brier=1)

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
    assert len(decision.reasons) == 6


def test_a_worse_model_is_refused_with_both_reasons():
    decision = decide(build_model(build_test(0.3)), build_model(build_test(1.5), "version 7"))
    assert not decision.accepted
    assert "against version 7: paired difference -0." in decision.reasons[0]
    assert "does not lie above the margin of -0.025" in decision.reasons[1]


def test_the_study_threshold_is_not_applied_to_images():
    test = build_test(1.0)
    a, b = build_model(test, threshold=0.9), build_model(test, threshold=0.5)
    assert decide(a, b, objective="val_accuracy").interval.estimate == 0


def test_each_difference_is_that_of_its_metric_and_level():
    a, b = build_model(build_test(1.2), threshold=0.7), build_model(build_test(1.0), study_temperature=2.0)
    found = measure_differences(a, b, "image", "log_loss")
    assert found.objective == paired_difference(a, b, metric="log_loss", level="image")
    assert found.gain.level == pytest.approx(0.6)
    assert found.gain.low > found.objective.low
    assert found.kappa == paired_difference(a, b, metric="kappa", level="study")
    assert found.brier == paired_difference(a, b, metric="brier", level="study")


def test_a_wide_interval_refuses_a_slightly_better_model():
    better = build_model(build_test(0.25, seed=1, n_patients=30))
    champion = build_model(build_test(0.2, seed=3, n_patients=30))
    decision = decide(better, champion)
    assert decision.interval.estimate >= 0
    assert not decision.accepted


def test_an_equal_model_does_not_replace_the_champion():
    decision = decide(build_model(build_test(1.0)), build_model(build_test(1.0)))
    assert not decision.accepted
    assert "A gain is not shown: the lower end of its one-sided 80% interval, +0.000," in decision.reasons[0]


def failed_guards(decision: Decision) -> list[str]:
    return [check.text.partition(" gets worse")[0] for check in decision.checks[2:] if not check.passed]


KAPPA = "Cohen's kappa of studies, each at its own threshold,"
NO_BETTER = "At its own threshold, Cohen's kappa of studies is 0.000 [-0.088, 0.088]: no better than chance."


def test_a_useless_threshold_refuses_a_better_model():
    decision = decide(build_model(build_test(1.5), threshold=0.0), build_model(build_test(0.5), threshold=0.5))
    assert not decision.accepted
    assert failed_guards(decision) == [KAPPA, NO_BETTER]


@pytest.mark.parametrize("n_patients", [30, 50, 100])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_useless_threshold_is_refused_on_a_small_test_set_and_beside_a_weak_champion(
    n_patients: int, threshold: float
) -> None:
    """Where the interval of the difference is too wide to show a loss, kappa itself has to be above chance."""
    for seed, champions in enumerate([0.5, 0.5, 0.1, 0.9]):
        champion = build_model(build_test(0.5, seed=seed, n_patients=n_patients), threshold=champions)
        candidate = build_model(build_test(2.0, seed=seed, n_patients=n_patients), threshold=threshold)
        found = measure_differences(candidate, champion, "study", "auroc")
        assert not apply_margins(replace(found, **BETTER), Margins()).accepted


def test_a_first_champion_needs_a_threshold_that_beats_chance():
    decision = decide(build_model(build_test(1.5), threshold=0.0), None)
    assert not decision.accepted
    assert "At its own threshold, Cohen's kappa of studies is 0.000" in str(decision)


def test_guards_at_the_champions_operating_point_do_not_depend_on_the_candidates_threshold():
    champion = build_model(build_test(0.8), threshold=0.5)
    found = [
        measure_differences(build_model(build_test(1.0), threshold=t), champion, "study", "auroc") for t in (0.1, 0.9)
    ]
    assert found[0].sensitivity == found[1].sensitivity
    assert found[0].specificity == found[1].specificity
    assert found[0].kappa != found[1].kappa


def test_lost_sensitivity_at_the_champions_specificity_refuses_the_model():
    """The candidate finds a third of the abnormal studies with certainty and guesses on the rest."""
    champion, candidate = build_test(1.2), build_test(3.0)
    guessed = (candidate["label"] == 1) & (candidate.index % 12 >= 4)
    candidate.loc[guessed, "logit"] = -3.0
    found = measure_differences(build_model(candidate), build_model(champion, threshold=0.3), "study", "auroc")
    decision = apply_margins(
        replace(found, objective=interval(0.1), gain=interval(0.1, 0.05)), Margins(kappa=1, brier=1)
    )
    assert "Sensitivity of studies at the champion's specificity" in failed_guards(decision)


def test_lost_calibration_refuses_a_model_with_the_same_ranking():
    test = build_test(0.4)
    assert failed_guards(decide(build_model(test, study_temperature=0.05), build_model(test))) == [
        "Brier score of studies"
    ]


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


GUARDS = ("sensitivity", "specificity", "kappa", "brier")
BETTER = {"objective": interval(0.05, 0.01, 0.09), "gain": interval(0.05, 0.03, 0.07)}


def differences(metric: str = "auroc", **found: Interval) -> Differences:
    equal = {**BETTER, **dict.fromkeys(GUARDS, interval(0.0)), "own_kappa": interval(0.5, 0.3, 0.7)}
    return Differences(level="study", metric=metric, champion="version 1", **equal | found)


@pytest.mark.parametrize(("low", "accepted"), [(0.001, True), (0.0, False), (-0.001, False), (np.nan, False)])
def test_a_gain_must_be_shown(low, accepted):
    decision = apply_margins(differences(gain=interval(0.01, low)), Margins())
    assert decision.accepted == accepted


@pytest.mark.parametrize(("low", "accepted"), [(-0.024, True), (-0.025, False), (-0.026, False), (np.nan, False)])
def test_the_lower_end_must_lie_above_the_margin(low, accepted):
    assert apply_margins(differences(objective=interval(0.01, low)), Margins()).accepted == accepted


@pytest.mark.parametrize(
    ("found", "gain", "accepted"),
    [
        (interval(-0.01, -0.2, 0.024), interval(-0.01, -0.1, -0.001), True),
        (interval(-0.01, -0.2, 0.026), interval(-0.01, -0.1, -0.001), False),
        (interval(-0.01, -0.2, 0.024), interval(-0.01, -0.1, 0.001), False),
    ],
)
def test_the_upper_end_counts_where_lower_is_better(found, gain, accepted):
    assert apply_margins(differences("log_loss", objective=found, gain=gain), Margins()).accepted == accepted


@pytest.mark.parametrize("name", ["sensitivity", "specificity", "kappa"])
@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        (interval(-0.2, -0.4, 0.001), True),
        (interval(-0.2, -0.4, -0.001), False),
        (interval(-0.05, -0.09, -0.01), True),
        (interval(-0.051, -0.09, -0.01), False),
        (interval(0.3, 0.2, 0.4), True),
        (interval(np.nan), False),
    ],
    ids=lambda value: str(value),
)
def test_a_guard_refuses_a_loss_beyond_its_margin_that_the_interval_shows(name, change, accepted):
    assert apply_margins(differences(**{name: change}), Margins()).accepted == accepted


@pytest.mark.parametrize(
    ("own", "change", "accepted"),
    [
        (interval(0.001, -0.1, 0.1), interval(0.1), True),
        (interval(0.001, -0.1, 0.1), interval(-0.049, -0.2, 0.2), True),
        (interval(0.001, -0.1, 0.1), interval(-0.051, -0.2, 0.2), False),
        (interval(0.3, 0.001, 0.5), interval(-0.3, -0.7, 0.001), True),
        (interval(0.3, 0.0, 0.5), interval(-0.3, -0.7, 0.001), False),
        (interval(0.0, 0.0, 0.0), interval(0.1), False),
        (interval(-0.1), interval(0.1), False),
        (interval(np.nan), interval(0.1), False),
    ],
    ids=str,
)
def test_a_threshold_must_be_of_use_in_itself(own, change, accepted):
    assert apply_margins(differences(own_kappa=own, kappa=change), Margins()).accepted == accepted


@pytest.mark.parametrize(
    ("change", "accepted"),
    [(interval(0.1, -0.001, 0.2), True), (interval(0.1, 0.001, 0.2), False), (interval(0.02, 0.01, 0.03), True)],
    ids=str,
)
def test_a_rise_of_the_brier_score_is_a_loss(change, accepted):
    assert apply_margins(differences(brier=change), Margins()).accepted == accepted


@pytest.mark.parametrize(
    ("metric", "change", "accepted"),
    [
        ("auroc", interval(-0.051, -0.1, -0.01), False),
        ("auroc", interval(-0.051, -0.1, 0.01), True),
        ("auroc", interval(-0.051, np.nan, np.nan), True),
        ("log_loss", interval(0.051, 0.01, 0.1), False),
    ],
    ids=str,
)
def test_a_body_part_is_a_guard(metric, change, accepted):
    lower = {"objective": interval(-0.05, -0.09, -0.01), "gain": interval(-0.05, -0.07, -0.03)}
    found = differences(metric, parts={"hand (80 studies)": change}, **(lower if metric == "log_loss" else {}))
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
    gain=INTERVALS,
    sensitivity=INTERVALS,
    specificity=INTERVALS,
    kappa=INTERVALS,
    own_kappa=INTERVALS,
    brier=INTERVALS,
    parts=st.dictionaries(st.sampled_from(["hand (80 studies)", "wrist (20 studies)"]), INTERVALS),
)
NAMES = ("objective", "sensitivity", "specificity", "kappa", "part", "brier")
MARGINS = st.builds(Margins, **dict.fromkeys(NAMES, SHARES))


@given(DIFFERENCES, MARGINS, MARGINS)
def test_wider_margins_accept_whatever_narrower_ones_accept(found, a, b):
    narrow, wide = (Margins(**{n: pick(getattr(a, n), getattr(b, n)) for n in NAMES}) for pick in (min, max))
    assert apply_margins(found, wide).accepted >= apply_margins(found, narrow).accepted


@given(DIFFERENCES, MARGINS)
def test_every_decision_has_a_reason(found, margins):
    decision = apply_margins(found, margins)
    assert decision.reasons
    assert decision.accepted == all(check.passed for check in decision.checks)


@settings(max_examples=10, deadline=None)
@given(st.floats(1, 3), st.floats(0.4, 0.6), st.floats(0.1, 1.5), st.sampled_from(["val_study_auroc", "val_log_loss"]))
def test_an_equal_model_is_refused_for_want_of_a_gain_alone(skill, threshold, temperature, objective):
    test = build_test(skill)
    a, b = (build_model(test, threshold=threshold, study_temperature=temperature) for _ in range(2))
    decision = decide(a, b, objective=objective)
    assert [check.passed for check in decision.checks] == [False, *[True] * 5]


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


def test_a_guard_without_an_interval_refuses():
    """Accuracy has an interval with few abnormal patients, and calling every study normal makes it high."""
    test = build_test(0.5)
    abnormal = test["patient"].isin(sorted(test["patient"].unique())[:6]).astype(int)
    test = test.assign(label=abnormal, logit=test["logit"] * 2 + abnormal)
    models = build_model(test, "version 2", threshold=1.0), build_model(test, threshold=0.5)
    decision = decide(*models, objective="val_study_accuracy")
    assert decision.interval.low > 0
    assert not decision.accepted
    assert "kappa of studies, each at its own threshold,: not comparable (6 patients with abnormal" in str(decision)
