"""Ranges and choices that a search draws a trial's values from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from muralab.errors import RecipeError

Value = float | int | bool | str
"""A value of a recipe that can be overridden or searched."""


@dataclass(frozen=True)
class LogUniform:
    """A positive number, uniform in its logarithm."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise RecipeError(f"LogUniform({self.low}, {self.high}): expected 0 < low < high.")

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a value, rounded to three significant digits so that it can be typed in again."""
        return float(f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.3g}")


@dataclass(frozen=True)
class Uniform:
    """A number, uniform between two limits."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RecipeError(f"Uniform({self.low}, {self.high}): expected low < high.")

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a value, rounded to three significant digits."""
        return float(f"{rng.uniform(self.low, self.high):.3g}")


class Choice:
    """One of several values, all equally likely."""

    def __init__(self, *values: Value) -> None:
        if not values:
            raise RecipeError("Choice(): expected at least one value.")
        self.values = values

    def draw(self, rng: np.random.Generator) -> Value:
        """Draw a value."""
        return self.values[int(rng.integers(len(self.values)))]


Space = LogUniform | Uniform | Choice
