"""The range of a selected model's figure: wider the more evaluations there were, exact where the bound is exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import beta, norm

from muralab.evaluation.best_of_many import interval_after_selection
from muralab.evaluation.intervals import Interval


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, n_resamples=2000)


def test_one_evaluation_changes_nothing() -> None:
    found = interval(0.9, 0.85, 0.94)
    assert interval_after_selection(found, 1) is found


def test_the_range_is_wider_the_more_evaluations_there_were() -> None:
    found = [interval_after_selection(interval(0.9, 0.85, 0.94), n) for n in (1, 2, 20, 1000)]
    assert all(a.low > b.low > 0.5 for a, b in itertools.pairwise(found))
    assert all(a.high < b.high < 1 for a, b in itertools.pairwise(found))
    assert found[2].level == pytest.approx(1 - 0.05 / 20)
    assert {one.estimate for one in found} == {0.9}


def test_a_normal_interval_on_the_logit_scale_gets_its_own_quantile() -> None:
    def ends(tail: float) -> tuple[float, float]:
        return tuple(1 / (1 + np.exp(-(2.0 + sign * norm.ppf(1 - tail) * 0.3))) for sign in (-1, 1))  # type: ignore[return-value]

    found = interval_after_selection(interval(1 / (1 + np.exp(-2.0)), *ends(0.025)), 20)
    assert (found.low, found.high) == pytest.approx(ends(0.025 / 20), abs=1e-12)


def test_the_bound_of_a_perfect_value_stays_exact() -> None:
    found = interval_after_selection(interval(1.0, beta.ppf(0.025, 40, 1), 1.0), 20)
    assert (found.low, found.high) == pytest.approx((beta.ppf(0.025 / 20, 40, 1), 1.0), abs=1e-12)


@pytest.mark.parametrize("found", [interval(0.9, np.nan, np.nan), interval(0.1, -0.2, 0.3)], ids=str)
def test_what_is_no_share_or_has_no_interval_is_left_alone(found: Interval) -> None:
    assert interval_after_selection(found, 20) is found
