"""Ranges that a search draws from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muralab.errors import RecipeError
from muralab.search_space import Choice, LogUniform, Uniform


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (2, 1), (1, 1), (float("nan"), 1)])
def test_log_uniform_refuses_limits_that_are_not_positive_and_increasing(low: float, high: float) -> None:
    with pytest.raises(RecipeError, match=r"expected 0 < low < high"):
        LogUniform(low, high)


def test_uniform_refuses_an_empty_range() -> None:
    with pytest.raises(RecipeError, match=r"expected low < high"):
        Uniform(1, 1)


def test_choice_refuses_no_values() -> None:
    with pytest.raises(RecipeError, match="at least one value"):
        Choice()


@given(st.integers(0, 2**32 - 1))
def test_draws_are_in_range_and_have_few_digits(seed: int) -> None:
    for space in (LogUniform(1e-5, 1e-3), Uniform(0.0, 0.1)):
        value = space.draw(np.random.default_rng(seed))
        assert space.low <= value <= space.high
        assert float(f"{value:g}") == value
    assert Choice("a", "b").draw(np.random.default_rng(seed)) in ("a", "b")


def test_log_uniform_draws_are_even_over_decades() -> None:
    rng = np.random.default_rng(0)
    draws = np.log10([LogUniform(1e-6, 1e-2).draw(rng) for _ in range(2000)])
    np.testing.assert_allclose(np.histogram(draws, bins=4, range=(-6, -2))[0], 500, rtol=0.15)
