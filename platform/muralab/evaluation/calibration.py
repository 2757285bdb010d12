"""Temperatures, operating point and uncertain band: fitted once on validation predictions, then used everywhere.

Two temperatures, because the mean over views is less confident than a single view: each is used only at the level it
was fitted on. Threshold and band come from calibrated probabilities of studies, never of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from muralab.errors import DataError, SettingsError
from muralab.evaluation.operating_point import check_rule, degenerate_reason, operating_threshold, uncertain_band
from muralab.evaluation.predictions import Level, level_rows, sigmoid

TEMPERATURE_BOUNDS = (0.05, 20.0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Everything that turns a network's logits into an answer."""

    image_temperature: float = 1.0
    """Divides an image's logit."""
    study_temperature: float = 1.0
    """Divides a study's logit, which is that of the mean over its images' uncalibrated probabilities."""
    threshold: float = 0.5
    """On the calibrated probability of a study; at or above it the study is abnormal."""
    rule: str = "max-kappa"
    """How the threshold was chosen: "max-kappa", "youden" or "sensitivity>=x"."""
    uncertain_low: float | None = None
    """Lower end of the band of calibrated study probabilities that are answered "uncertain"; None: no band."""
    uncertain_high: float | None = None
    """Upper end of the band."""
    reason: str | None = None
    """Why nothing could be fitted, so that the values above are the defaults; None where they were fitted."""

    def __post_init__(self) -> None:
        check_rule(self.rule)
        for name in ("image_temperature", "study_temperature"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise SettingsError(f"{name} must be a finite number above 0; got {value}.")
        if not 0 <= self.threshold <= 1:
            raise SettingsError(f"threshold must lie in [0, 1]; got {self.threshold}.")
        low, high = self.uncertain_low, self.uncertain_high
        if (low is None) != (high is None) or (low is not None and high is not None and not 0 <= low <= high <= 1):
            raise SettingsError(f"The uncertain band must be 0 <= low <= high <= 1, or None; got {low} and {high}.")

    def temperature(self, level: Level) -> float:
        """The temperature of "image" or "study"."""
        return self.study_temperature if level == "study" else self.image_temperature

    def threshold_of(self, level: Level) -> float:
        """The operating point of a level: the fitted one for studies, 0.5 for images, for which none was fitted."""
        return self.threshold if level == "study" else 0.5

    def to_dict(self) -> dict[str, Any]:
        """Plain values that can be stored with a model."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read the values that `to_dict` returned.

        Raises:
            DataError: a value is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        odd = sorted(known.symmetric_difference(values))
        if odd:
            raise DataError(
                f"A stored calibration must have exactly the keys {', '.join(sorted(known))}; missing or unknown: "
                f"{', '.join(odd)}."
            )
        return cls(**values)


def fit_calibration(validation_predictions: pd.DataFrame, *, rule: str = "max-kappa") -> Calibration:
    """Fit temperatures, threshold and uncertain band on a validation set's predictions.

    Args:
        validation_predictions: the columns of `PREDICTION_COLUMNS`.
        rule: how the threshold is chosen, one of `RULES`.

    Returns:
        The fitted values; temperatures of 1, a threshold of 0.5 and a `reason` where nothing can be fitted.

    Raises:
        DataError: the table cannot be evaluated (see `check_predictions`).
        SettingsError: an unknown rule.
    """
    check_rule(rule)
    studies = level_rows(validation_predictions, level="study")
    labels = studies["label"].to_numpy()
    reason = degenerate_reason(labels, studies["probability"])
    if reason is not None:
        return Calibration(rule=rule, reason=reason)
    study_temperature = fit_temperature(labels, studies["logit"])
    probabilities = sigmoid(studies["logit"].to_numpy(dtype=np.float64) / study_temperature)
    threshold = operating_threshold(labels, probabilities, rule)
    low, high = uncertain_band(labels, probabilities, threshold) or (None, None)
    return Calibration(
        image_temperature=fit_temperature(validation_predictions["label"], validation_predictions["logit"]),
        study_temperature=study_temperature,
        threshold=threshold,
        rule=rule,
        uncertain_low=low,
        uncertain_high=high,
    )


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """The temperature that minimises the log loss of N logits, within `TEMPERATURE_BOUNDS`.

    The targets are Platt's (1999): (n + 1) / (n + 2) instead of 1 for a class of n rows, so that the probabilities of a
    small set which the model happens to separate do not become 0 and 1.

    Args:
        labels: 0 or 1, shape [N].
        logits: shape [N].
    """
    from scipy.optimize import brentq

    y = np.asarray(labels, dtype=np.float64)
    x = np.asarray(logits, dtype=np.float64)
    n_abnormal, n_normal = y.sum(), len(y) - y.sum()
    targets = np.where(y == 1, (n_abnormal + 1) / (n_abnormal + 2), 1 / (n_normal + 2))

    def slope(log_temperature: float) -> float:
        """Derivative of the log loss by 1 / temperature; it falls as the temperature rises (the loss is convex)."""
        return float(np.mean((sigmoid(x / np.exp(log_temperature)) - targets) * x))

    low, high = TEMPERATURE_BOUNDS
    if slope(np.log(low)) <= 0:
        return low
    if slope(np.log(high)) > 0:
        return high
    return float(np.exp(brentq(slope, np.log(low), np.log(high), xtol=1e-14)))
