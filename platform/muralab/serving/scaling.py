"""From a network's logits to calibrated probabilities: a line in log-odds, and its shift to another prevalence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muralab.errors import SettingsError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Calibrated log-odds are logit / temperature + intercept.

    Divided by a temperature rather than multiplied by a slope, so that a calibration that was stored as a temperature
    alone gives the same floating-point numbers.
    """

    temperature: float = 1.0
    """1 / slope. Above 1 it makes the network less confident."""

    intercept: float = 0.0
    """Shifts all log-odds, such as those of a network that was trained with class weights."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise SettingsError(f"A temperature must be a finite number above 0; got {self.temperature}.")
        if not np.isfinite(self.intercept):
            raise SettingsError(f"An intercept must be a finite number; got {self.intercept}.")

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities of logits, in the same shape."""
        return sigmoid(np.asarray(logits, dtype=np.float64) / self.temperature + self.intercept)

    def shifted(self, shift: float) -> Scaling:
        """The same with a shift of all log-odds."""
        return replace(self, intercept=self.intercept + shift)


def sigmoid(logits: Floats) -> Floats:
    """Log-odds to probabilities, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def logit(probabilities: ArrayLike) -> Floats:
    """Probabilities to log-odds, in the same shape; finite also for 0 and 1."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def log_odds(probability: float) -> float:
    """Log-odds of one probability."""
    return float(logit(probability))


def prevalence_shift(fitted: float, wanted: float) -> float:
    """What a share of abnormal studies of `wanted` instead of `fitted` adds to all log-odds."""
    return log_odds(wanted) - log_odds(fitted)


def move(probability: float, shift: float) -> float:
    """A probability after a shift of its log-odds; 0 and 1 stay, and so does any without a shift."""
    if shift == 0 or probability in (0, 1):
        return probability
    return float(sigmoid(np.asarray(log_odds(probability) + shift)))
