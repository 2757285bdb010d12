"""Ranges that a search draws from."""

from __future__ import annotations

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


@given(st.floats(0, 1, exclude_max=True))
def test_values_are_in_range_and_have_few_digits(quantile: float) -> None:
    for space in (LogUniform(1e-5, 1e-3), Uniform(0.0, 0.1)):
        value = space.value_at(quantile)
        assert space.low <= value <= space.high
        assert float(f"{value:g}") == value
    assert Choice("a", "b").value_at(quantile) == ("a" if quantile < 0.5 else "b")


def test_quantiles_are_even_in_the_scale_of_the_range() -> None:
    quantiles = (0.0, 0.25, 0.5, 0.75)
    assert [LogUniform(1e-6, 1e-2).value_at(q) for q in quantiles] == [1e-6, 1e-5, 1e-4, 1e-3]
    assert [Uniform(-1, 3).value_at(q) for q in quantiles] == [-1, 0, 1, 2]
    assert [Choice(8, 16, 32, 64).value_at(q) for q in quantiles] == [8, 16, 32, 64]
