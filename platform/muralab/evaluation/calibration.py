"""Calibration, operating point and uncertain band: fitted once on validation predictions, then used everywhere.

Two scalings, because the mean over views is less confident than a single view: each is used only at the level it was
fitted on. Threshold and band come from calibrated probabilities of studies, never of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from muralab.errors import DataError, SettingsError
from muralab.evaluation.operating_point import (
    check_rule,
    degenerate_reason,
    label_weight,
    operating_threshold,
    sensitivity_bound,
    uncertain_band,
)
from muralab.evaluation.predictions import Level, level_rows
from muralab.serving.scaling import Scaling, move, prevalence_shift, sigmoid

TEMPERATURE_BOUNDS = (0.05, 20.0)
LOG_SLOPE_SD = 1.0
"""Standard deviation of the prior on the log of the slope, around a slope of 1.

Chosen by simulation (bench/calibration.py): of the priors tried, it and Platt's targets together lost the least log
loss with 10 to 40 validation studies, and nothing with 300.
"""
MIN_PATIENTS = 10
"""With fewer patients of a class there is a warning that the calibration is rough."""
Method = Literal["temperature", "slope and intercept", "none"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Everything that turns a network's logits into an answer."""

    image_temperature: float = 1.0
    """Divides an image's logit."""
    image_intercept: float = 0.0
    """Added to it."""
    study_temperature: float = 1.0
    """Divides a study's logit, which is that of the mean over its images' uncalibrated probabilities."""
    study_intercept: float = 0.0
    """Added to it."""
    method: Method = "temperature"
    """What was fitted. Models of earlier versions have a temperature alone, which cannot undo class weights."""
    prevalence: float | None = None
    """Share of abnormal validation studies, for which the probabilities hold; None: not recorded."""
    n_studies: int | None = None
    """Validation studies it was fitted on; None: not recorded."""
    site_prevalence: float | None = None
    """The share that probabilities, threshold and band were shifted to (`at_prevalence`); None: not shifted."""
    threshold: float = 0.5
    """On the calibrated probability of a study; at or above it the study is abnormal."""
    rule: str = "max-kappa"
    """How the threshold was chosen: "max-kappa", "youden" or "sensitivity>=x"."""
    threshold_weight: float | None = None
    """For "max-kappa" and "youden": weight of the validation labels beside the calibrated probabilities. None: for
    another rule, and in models of earlier versions, whose threshold is the best for the labels alone."""
    sensitivity_bound: float | None = None
    """For "sensitivity>=x": lower 95% confidence bound of the sensitivity on new patients. None: for other rules, and
    in models of earlier versions, where x was reached on the validation studies only."""
    uncertain_low: float | None = None
    """Lower end of the band of calibrated study probabilities that are answered "uncertain"; None: no band."""
    uncertain_high: float | None = None
    """Upper end of the band."""
    warnings: tuple[str, ...] = ()
    """What makes the values doubtful, in sentences."""
    reason: str | None = None
    """Why nothing could be fitted, so that the values above are the defaults; None where they were fitted."""

    def __post_init__(self) -> None:
        check_rule(self.rule)
        if self.method not in get_args(Method):
            raise SettingsError(f"Unknown calibration method '{self.method}'; known: {', '.join(get_args(Method))}.")
        for name in ("image_temperature", "study_temperature"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise SettingsError(f"{name} must be a finite number above 0; got {value}.")
        for name in ("prevalence", "site_prevalence"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise SettingsError(f"{name} must lie between 0 and 1; got {value}.")
        if not 0 <= self.threshold <= 1:
            raise SettingsError(f"threshold must lie in [0, 1]; got {self.threshold}.")
        low, high = self.uncertain_low, self.uncertain_high
        if (low is None) != (high is None) or (low is not None and high is not None and not 0 <= low <= high <= 1):
            raise SettingsError(f"The uncertain band must be 0 <= low <= high <= 1, or None; got {low} and {high}.")

    def scaling(self, level: Level) -> Scaling:
        """What calibrates the logits of "image" or "study"."""
        if level == "study":
            return Scaling(temperature=self.study_temperature, intercept=self.study_intercept)
        return Scaling(temperature=self.image_temperature, intercept=self.image_intercept)

    def threshold_of(self, level: Level) -> float:
        """The operating point of a level: the fitted one for studies, 0.5 for images, for which none was fitted."""
        return self.threshold if level == "study" else 0.5

    def at_prevalence(self, share: float) -> Calibration:
        """The same for a site with another share of abnormal studies; it calls the same studies abnormal.

        All log-odds are shifted by the difference of the two shares' log-odds, and threshold and band with them.

        Args:
            share: of abnormal studies at the site, between 0 and 1.

        Raises:
            SettingsError: the share is out of range, or that of the validation studies is not recorded.
        """
        if not 0 < share < 1:
            raise SettingsError(f"prevalence={share:g}: expected a share above 0 and below 1.")
        if self.prevalence is None:
            raise SettingsError(
                f"prevalence={share:g}: this model does not record for which share of abnormal studies its "
                "probabilities hold. It was calibrated by a temperature alone, in an earlier version, or nothing could "
                "be fitted. Train it again."
            )
        shift = prevalence_shift(self.site_prevalence or self.prevalence, share)
        return replace(
            self,
            image_intercept=self.image_intercept + shift,
            study_intercept=self.study_intercept + shift,
            threshold=move(self.threshold, shift),
            uncertain_low=None if self.uncertain_low is None else move(self.uncertain_low, shift),
            uncertain_high=None if self.uncertain_high is None else move(self.uncertain_high, shift),
            site_prevalence=share,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that can be stored with a model."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read the values that `to_dict` returned, of this version or of one that fitted temperatures alone.

        Raises:
            DataError: a value is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        required = known - LATER_FIELDS - (frozenset() if ADDED_FIELDS & values.keys() else ADDED_FIELDS)
        odd = sorted((required - values.keys()) | (values.keys() - known))
        if odd:
            raise DataError(
                f"A stored calibration must have exactly the keys {', '.join(sorted(known))}; missing or unknown: "
                f"{', '.join(odd)}."
            )
        return cls(**{**values, "warnings": tuple(values.get("warnings", ()))})


ADDED_FIELDS = frozenset(
    {
        "image_intercept",
        "study_intercept",
        "method",
        "prevalence",
        "n_studies",
        "site_prevalence",
        "sensitivity_bound",
        "warnings",
    }
)
"""Fields that a calibration of a temperature alone does not store."""
LATER_FIELDS = frozenset({"threshold_weight"})
"""Fields that the first calibrations with slope and intercept do not store either."""


def fit_calibration(validation_predictions: pd.DataFrame, *, rule: str = "max-kappa") -> Calibration:
    """Fit scalings, threshold and uncertain band on a validation set's predictions.

    Args:
        validation_predictions: the columns of `PREDICTION_COLUMNS`.
        rule: how the threshold is chosen, one of `RULES`.

    Returns:
        The fitted values; no scaling, a threshold of 0.5 and a `reason` where nothing can be fitted.

    Raises:
        DataError: the table cannot be evaluated (see `check_predictions`).
        SettingsError: an unknown rule, or too few abnormal patients for it.
    """
    check_rule(rule)
    studies = level_rows(validation_predictions, level="study")
    labels, patients = studies["label"].to_numpy(), studies["patient"].to_numpy()
    reason = degenerate_reason(labels, studies["probability"])
    if reason is not None:
        return Calibration(method="none", rule=rule, reason=reason)
    rows: dict[Level, pd.DataFrame] = {"image": validation_predictions, "study": studies}
    image, study = (fit_scaling(table["label"], table["logit"]) for table in rows.values())
    probabilities = study.probabilities(studies["logit"])
    threshold = operating_threshold(labels, probabilities, rule, patients=patients)
    low, high = uncertain_band(probabilities, threshold) or (None, None)
    bounded = check_rule(rule) is not None
    return Calibration(
        image_temperature=image.temperature,
        image_intercept=image.intercept,
        study_temperature=study.temperature,
        study_intercept=study.intercept,
        method="slope and intercept",
        prevalence=float(labels.mean()),
        n_studies=len(labels),
        threshold=threshold,
        rule=rule,
        threshold_weight=None if bounded else label_weight(labels, patients),
        sensitivity_bound=sensitivity_bound(labels, probabilities, threshold, patients) if bounded else None,
        uncertain_low=low,
        uncertain_high=high,
        warnings=(*_few_patients(studies), *_doubtful_fit("image", rows, image), *_doubtful_fit("study", rows, study)),
    )


def fit_scaling(labels: ArrayLike, logits: ArrayLike) -> Scaling:
    """The temperature and the intercept that minimise the penalised log loss of N logits.

    The intercept is free: it undoes what class weights add to the log-odds. The temperature lies within
    `TEMPERATURE_BOUNDS` and its log has a weak prior, `LOG_SLOPE_SD`. The targets are Platt's (1999): (n + 1) / (n + 2)
    instead of 1 for a class of n rows, so that the probabilities of a small set which the model happens to separate do
    not become 0 and 1.

    Args:
        labels: 0 or 1, shape [N], both present.
        logits: shape [N].
    """
    from scipy.optimize import minimize

    y = np.asarray(labels, dtype=np.float64)
    centre = float(np.mean(np.asarray(logits, dtype=np.float64)))
    x = np.asarray(logits, dtype=np.float64) - centre
    n_abnormal, n_normal = y.sum(), len(y) - y.sum()
    targets = np.where(y == 1, (n_abnormal + 1) / (n_abnormal + 2), 1 / (n_normal + 2))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        """Penalised log loss of a log slope and an intercept of the centred logits, and its gradient."""
        slope = np.exp(values[0])
        z = slope * x + values[1]
        residuals = sigmoid(z) - targets
        penalty = (values[0] / LOG_SLOPE_SD) ** 2 / 2
        value = float(np.sum(np.logaddexp(0, z) - targets * z) + penalty)
        return value, np.array([slope * np.sum(residuals * x) + values[0] / LOG_SLOPE_SD**2, residuals.sum()])

    low, high = (-float(np.log(bound)) for bound in reversed(TEMPERATURE_BOUNDS))
    start = [0.0, float(np.log(n_abnormal / n_normal))]
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(low, high), (None, None)], options={"ftol": 0, "gtol": 1e-10}
    )
    slope = float(np.exp(found.x[0]))
    return Scaling(temperature=1 / slope, intercept=float(found.x[1]) - slope * centre)


def _few_patients(studies: pd.DataFrame) -> list[str]:
    """A warning for each class of fewer than `MIN_PATIENTS` patients."""
    found = []
    for name, label in (("normal", 0), ("abnormal", 1)):
        n_patients = studies.loc[studies["label"] == label, "patient"].nunique()
        if n_patients < MIN_PATIENTS:
            found.append(
                f"Calibration and threshold rest on {n_patients} validation patient{'s' * (n_patients != 1)} with "
                f"{name} studies, fewer than {MIN_PATIENTS}: the probabilities are rough."
            )
    return found


def _doubtful_fit(level: Level, rows: Mapping[Level, pd.DataFrame], fitted: Scaling) -> list[str]:
    """A warning where scores do not rank, which the prior of a small set hides, or where the fit hit a bound."""
    labels, logits = (rows[level][name].to_numpy(np.float64) for name in ("label", "logit"))
    low, high = TEMPERATURE_BOUNDS
    bound = f"hit its bound, a temperature of {fitted.temperature:.3g}"
    if logits[labels == 1].mean() <= logits[labels == 0].mean():  # so a free slope would be 0 or negative
        what = bound if np.isclose(fitted.temperature, high) else "means nothing"
        why = "its scores on the validation set do not rank abnormal above normal"
    elif np.isclose(fitted.temperature, high):
        what, why = bound, "its scores on the validation set hardly rank abnormal above normal"
    elif np.isclose(fitted.temperature, low):
        what, why = bound, "its scores on the validation set hardly vary, so small differences decide"
    else:
        return []
    return [f"The calibration of {level} probabilities {what}: {why}."]
