"""Calibrated probabilities: a line in log-odds, and its shift to another prevalence."""

from __future__ import annotations

import numpy as np
import pytest

from muralab.errors import SettingsError
from muralab.serving.scaling import Scaling, log_odds, move, prevalence_shift, sigmoid


def test_a_logit_is_divided_then_shifted():
    scaled = Scaling(temperature=2, intercept=-0.5).probabilities([3.0, -1.0])
    assert scaled == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])


def test_a_temperature_alone_changes_no_bit():
    logits = np.random.default_rng(0).normal(0, 10, 1000)
    assert (Scaling(temperature=1.37).probabilities(logits) == sigmoid(logits / 1.37)).all()


def test_extreme_logits_give_0_and_1_without_a_warning():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert Scaling().probabilities([-800.0, 800.0]) == pytest.approx([0, 1])


def test_a_shift_moves_odds_by_the_ratio_of_the_shares_odds():
    shift = prevalence_shift(0.4, 0.1)
    assert np.exp(shift) == pytest.approx((0.1 / 0.9) / (0.4 / 0.6))
    assert move(0.4, shift) == pytest.approx(0.1)
    assert Scaling(intercept=0.3).shifted(shift).intercept == pytest.approx(0.3 + shift)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certainty_is_not_moved(probability):
    assert move(probability, 3.0) == probability
    assert np.isfinite(log_odds(probability))


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": float("inf")}, {"intercept": float("nan")}])
def test_impossible_values_are_refused(fields):
    with pytest.raises(SettingsError, match="must be a finite number"):
        Scaling(**fields)
