"""Logits of the views of a request -> calibrated answers per study, with warnings about each view.

Shape legend: V views (rows) of a request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from muralab.serving.config import ServingConfig
from muralab.serving.request import RequestParams, View


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
        Table with probability, study_probability, abnormal, uncertain, threshold, model_version and warnings; the first
        four are None for unreadable views.
    """
    threshold = config.threshold if params.threshold is None else params.threshold
    total = Counter(view.study for view in views)
    readable = Counter(view.study for view in views if view.square is not None)
    study_probability = study_probabilities([view.study for view in views], logits, config.study_temperature)
    rows = []
    for view, logit, study in zip(views, logits, study_probability):
        row: dict[str, Any] = dict.fromkeys(("probability", "study_probability", "abnormal", "uncertain"))
        warnings: list[str] = []
        if view.square is not None:
            row["probability"] = float(_sigmoid(logit / config.image_temperature))
            row["study_probability"] = float(study)
            row["abnormal"] = bool(study >= threshold)
            row["uncertain"] = _is_uncertain(float(study), config)
            warnings = [*_study_warnings(readable[view.study], total[view.study]), *view.warnings]
        rows.append({**row, "threshold": float(threshold), "model_version": model_version, "warnings": warnings})
    return pd.DataFrame(rows, dtype=object if any(view.error for view in views) else None)


def study_probabilities(studies: Sequence[object], logits: np.ndarray, temperature: float) -> np.ndarray:
    """Calibrated probability of the study of each row: the mean over its views, with temperature scaling.

    Args:
        studies: study of each row, [V].
        logits: float [V]; rows with NaN are left out of the mean.
        temperature: divisor of the logit of the mean.

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
        return _sigmoid(((abnormal - normal) / temperature)[keys])


def _study_warnings(readable: int, total: int) -> list[str]:
    found = ["single view"] if readable == 1 else []
    return [*found, f"{total - readable} of the study's {total} views could not be read"] if readable < total else found


def _is_uncertain(probability: float, config: ServingConfig) -> bool:
    if config.uncertain_low is None or config.uncertain_high is None:
        return False
    return config.uncertain_low <= probability <= config.uncertain_high


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))))
