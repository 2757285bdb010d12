"""Ranges and choices that a search draws a trial's values from.

A space turns a quantile, from 0 to 1 and below 1, into a value; where quantiles come from is the sampler's business
(`tune/sampler.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from muralab.errors import RecipeError

Value = float | int | bool | str
"""A value of a recipe that can be overridden or searched."""


def rounded(value: float) -> float:
    """A number in three significant digits, so that it can be typed in again."""
    return float(f"{value:.3g}")


@dataclass(frozen=True)
class LogUniform:
    """A positive number, uniform in its logarithm."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise RecipeError(f"LogUniform({self.low}, {self.high}): expected 0 < low < high.")

    def value_at(self, quantile: float) -> float:
        """The value at a quantile, rounded."""
        low, high = math.log(self.low), math.log(self.high)
        return rounded(math.exp(low + quantile * (high - low)))

    def contains(self, value: Value) -> bool:
        """Whether a search may draw a value."""
        return self.low <= float(value) <= self.high


@dataclass(frozen=True)
class Uniform:
    """A number, uniform between two limits."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RecipeError(f"Uniform({self.low}, {self.high}): expected low < high.")

    def value_at(self, quantile: float) -> float:
        """The value at a quantile, rounded."""
        return rounded(self.low + quantile * (self.high - self.low))

    def contains(self, value: Value) -> bool:
        """Whether a search may draw a value."""
        return self.low <= float(value) <= self.high


class Choice:
    """One of several values, all equally likely."""

    def __init__(self, *values: Value) -> None:
        if not values:
            raise RecipeError("Choice(): expected at least one value.")
        self.values = values

    def value_at(self, quantile: float) -> Value:
        """The value at a quantile."""
        return self.values[int(quantile * len(self.values))]

    def contains(self, value: Value) -> bool:
        """Whether a search may draw a value."""
        return value in self.values


Space = LogUniform | Uniform | Choice
