"""Logits of the views of a request -> calibrated answers per study, with warnings about each view.

Shape legend: V views (rows) of a request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from muralab.serving.config import ServingConfig
from muralab.serving.request import RequestParams, View, refuse
from muralab.serving.scaling import Scaling, log_odds, move, prevalence_shift


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a request's parameters make of a model's calibration, threshold and band."""

    image: Scaling
    study: Scaling
    prevalence: float | None
    """Share of abnormal studies for which the probabilities hold; None: not recorded."""
    threshold: float
    uncertain_low: float | None
    uncertain_high: float | None

    def is_uncertain(self, probability: float) -> bool:
        """Whether a study's probability lies in the band."""
        if self.uncertain_low is None or self.uncertain_high is None:
            return False
        return self.uncertain_low <= probability <= self.uncertain_high


def operating_point(config: ServingConfig, params: RequestParams) -> OperatingPoint:
    """The calibration, threshold and band of a request.

    Another prevalence shifts the log-odds of probabilities, the model's own threshold and the band alike, so that it
    changes no call. A request's own threshold is compared with the shifted probability; the band moves to it, with the
    same width in log-odds.

    Raises:
        MlflowException: a prevalence, and the model does not record its own; HTTP 400.
    """
    shift = 0.0
    if params.prevalence is not None:
        if config.prevalence is None:
            raise refuse(
                "The parameter prevalence cannot be used with this model: it does not record for which share of "
                "abnormal studies its probabilities hold. Omit the parameter, or train and register the model again."
            )
        shift = prevalence_shift(config.prevalence, params.prevalence)
    threshold = move(config.threshold, shift) if params.threshold is None else params.threshold
    moved = shift if params.threshold is None else log_odds(threshold) - log_odds(config.threshold)
    low, high = config.uncertain_low, config.uncertain_high
    return OperatingPoint(
        image=config.image_scaling.shifted(shift),
        study=config.study_scaling.shifted(shift),
        prevalence=config.prevalence if params.prevalence is None else params.prevalence,
        threshold=threshold,
        uncertain_low=None if low is None else move(low, moved),
        uncertain_high=None if high is None else move(high, moved),
    )


def build_answer(
    views: Sequence[View], logits: np.ndarray, config: ServingConfig, params: RequestParams, model_version: str
) -> pd.DataFrame:
    """Build the answer, one row per view.

    Args:
        views: rows of the request.
        logits: float [V]; NaN for an unreadable view.
        config: calibration of the model.
        params: parameters of the request.
        model_version: name and version of the model.

    Returns:
        Table with probability, study_probability, abnormal, uncertain, threshold, prevalence, model_version and
        warnings; the first four are None for unreadable views, prevalence where the model does not record it.

    Raises:
        MlflowException: as `operating_point`.
    """
    point = operating_point(config, params)
    by_study: dict[object, list[View]] = defaultdict(list)
    for view in views:
        by_study[view.study].append(view)
    study_warnings = {study: _study_warnings(own) for study, own in by_study.items()}
    study_probability = study_probabilities([view.study for view in views], logits, point.study)
    rows = []
    for view, logit, study in zip(views, logits, study_probability):
        row: dict[str, Any] = dict.fromkeys(("probability", "study_probability", "abnormal", "uncertain"))
        warnings: list[str] = []
        if view.square is not None:
            row["probability"] = float(point.image.probabilities(logit))
            row["study_probability"] = float(study)
            row["abnormal"] = bool(study >= point.threshold)
            row["uncertain"] = point.is_uncertain(float(study))
            warnings = [*study_warnings[view.study], *view.warnings]
        used = {"threshold": float(point.threshold), "prevalence": point.prevalence, "model_version": model_version}
        rows.append({**row, **used, "warnings": warnings})
    return pd.DataFrame(rows, dtype=object if any(view.error for view in views) else None)


def study_probabilities(studies: Sequence[object], logits: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Calibrated probability of the study of each row: the mean over its views, scaled.

    Args:
        studies: study of each row, [V].
        logits: float [V]; rows with NaN are left out of the mean.
        scaling: of the logit of the mean.

    Returns:
        float [V]; NaN for a study without a readable view.
    """
    values = np.asarray(logits, float)
    keys, unique = pd.factorize(pd.Series(list(studies), dtype=object))
    readable = np.isfinite(values)
    # In log space, as in the evaluation: the mean of confident views rounds to 1, but its logit stays finite.
    abnormal, normal = np.full(len(unique), -np.inf), np.full(len(unique), -np.inf)
    np.logaddexp.at(abnormal, keys[readable], -np.logaddexp(0, -values[readable]))
    np.logaddexp.at(normal, keys[readable], -np.logaddexp(0, values[readable]))
    with np.errstate(invalid="ignore"):  # a study without a readable view stays NaN
        return np.asarray(scaling.probabilities(abnormal - normal)[keys])


def _study_warnings(views: Sequence[View]) -> list[str]:
    """Warnings about the views of one study together; what files say of patients is never quoted."""
    readable = [view for view in views if view.square is not None]
    found = ["single view"] if len(readable) == 1 else []
    if len(readable) < len(views):
        found.append(f"{len(views) - len(readable)} of the study's {len(views)} views could not be read")
    n_patients = len({view.patient for view in readable} - {""})
    n_examinations = len({view.examination for view in readable} - {""})
    if n_patients > 1:
        found.append(f"views of {n_patients} patients are answered as one study")
    elif n_examinations > 1:
        found.append(f"views of {n_examinations} examinations are answered as one study")
    return found
