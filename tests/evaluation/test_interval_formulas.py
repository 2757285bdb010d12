"""Formulas of intervals: equal to published values and to other libraries, and sensible at the ends of their range."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from muralab.evaluation.interval_formulas import (
    auroc_bounds,
    combine_bounds,
    exact_lower_bound,
    hanley_mcneil_variance,
    jackknife_variance,
    kish_number,
    logit_bounds,
    mean_loss_bounds,
    shrink,
    welch_df,
    wilson_bounds,
)


@pytest.mark.parametrize(("right", "n"), [(0, 12), (3, 12), (81, 263), (20, 20)])
def test_wilson_bounds_equal_scipys(right, n):
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_bounds(right / n, n, 0.95) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_exact_share_equals_clopper_pearson():
    exact = stats.binomtest(10, 10).proportion_ci(0.95, method="exact")
    assert exact_lower_bound(10, 0.95) == pytest.approx(exact.low, abs=1e-12)


@pytest.mark.parametrize(("sizes", "expected"), [([1, 1, 1, 1], 4), ([7, 7], 2), ([3, 0, 3], 2), ([9, 3, 3, 3], 3)])
def test_kish_number(sizes, expected):
    assert kish_number(np.array(sizes, dtype=float)) == pytest.approx(expected)


def test_the_jackknife_variance_of_a_mean_is_the_usual_one():
    x = np.random.default_rng(0).normal(size=30)
    without = np.array([np.delete(x, i).mean() for i in range(30)])
    assert jackknife_variance(without) == pytest.approx(x.var(ddof=1) / 30)
    assert jackknife_variance(np.append(without, np.nan)) == pytest.approx(x.var(ddof=1) / 30)


def test_degrees_of_freedom_are_those_of_welch():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 3, 12), rng.normal(0, 1, 40)
    difference = [np.delete(a, i).mean() - b.mean() for i in range(12)]
    difference += [a.mean() - np.delete(b, i).mean() for i in range(40)]
    found = welch_df(np.array(difference), np.arange(52) < 12, 12, 40)
    assert found == pytest.approx(stats.ttest_ind(a, b, equal_var=False).df, rel=0.02)


def test_a_variance_of_few_informative_patients_is_drawn_to_the_prior():
    assert [shrink(1.0, 5.0, n) for n in (0, 1, 3)] == [5.0, 3.0, 2.0]
    assert shrink(1.0, 5.0, 10**6) == pytest.approx(1.0, abs=1e-5)


def test_the_variance_of_an_auroc_equals_hanley_and_mcneils_in_equal_classes():
    auroc, n = 0.8, 50
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    theirs = (auroc * (1 - auroc) + (n - 1) * (q1 - auroc**2) + (n - 1) * (q2 - auroc**2)) / n**2
    assert hanley_mcneil_variance(auroc, n, n) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("auroc", [0.02, 0.5, 0.87, 0.999])
def test_auroc_bounds_are_as_far_away_as_their_own_variance_says(auroc):
    for bound in auroc_bounds(auroc, 15, 40, 1.3, 0.95):
        distance = abs(bound - auroc) / np.sqrt(1.3 * hanley_mcneil_variance(bound, 15, 40))
        assert distance == pytest.approx(1.959964, rel=1e-4)


def test_a_perfect_auroc_has_a_lower_bound_that_rises_with_the_patients():
    lows = [auroc_bounds(1.0, n, n, 1.0, 0.95)[0] for n in (10, 30, 100)]
    assert 0.7 < lows[0] < lows[1] < lows[2] < 1
    assert [auroc_bounds(value, 10, 10, 1.0, 0.95)[i] for value, i in ((1.0, 1), (0.0, 0))] == [1, 0]


def test_bounds_of_a_sum_are_those_of_zou_and_donner():
    estimates, bounds = np.array([0.6, 0.8]), np.array([[0.5, 0.65], [0.72, 0.85]])
    for correlation in (0.0, 0.5):
        found = combine_bounds(np.sum, estimates, bounds, np.array([[1, correlation], [correlation, 1]]))
        low, high = ([0.1, 0.08], [0.05, 0.05])
        expected = [np.sqrt(x**2 + y**2 + 2 * correlation * x * y) for x, y in (low, high)]
        assert found == pytest.approx((1.4 - expected[0], 1.4 + expected[1]))


def test_an_argument_that_lowers_the_value_moves_the_other_end():
    found = combine_bounds(lambda x: x[0] - x[1], np.array([3.0, 1.0]), np.array([[3.0, 3.0], [0.5, 3.0]]), np.eye(2))
    assert found == pytest.approx((0.0, 2.5))


def test_correlated_errors_cancel_in_a_difference():
    bounds, correlated = np.array([[0.4, 0.6], [0.4, 0.6]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    assert combine_bounds(lambda x: x[0] - x[1], np.array([0.5, 0.5]), bounds, correlated) == pytest.approx((0, 0))


def test_losses_without_a_large_one_get_a_wide_upper_bound():
    losses, sizes = np.full(15, 0.01), np.ones(15)
    mean, low, high = mean_loss_bounds(losses, sizes, at_chance=0.25, confidence=0.95)
    assert (mean, low) == pytest.approx((0.01, 0.01))
    assert 0.05 < high < 0.1
    assert mean_loss_bounds(0 * losses, sizes, at_chance=0.25, confidence=0.95)[2] == pytest.approx(high - 0.01)


def test_logit_bounds_stay_inside_the_range():
    low, high = logit_bounds(0.95, 0.05**2, chance=0.3, n=20, confidence=0.95)
    assert 0.6 < low < 0.95 < high < 1
    assert logit_bounds(1.0, 0.0, chance=0.3, n=20, confidence=0.95)[0] < 0.95
