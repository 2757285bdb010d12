"""Logits of a request's views -> calibrated answers, study by study, with what a reader should know about each view.

Shape legend: V views (rows) of a request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from muralab.serving.config import ServingConfig
from muralab.serving.request import Settings, View


def build_answer(
    views: Sequence[View], logits: np.ndarray, config: ServingConfig, settings: Settings, model_version: str
) -> pd.DataFrame:
    """One row of answer a view.

    Args:
        views: the request's rows.
        logits: float [V], NaN for a bad row.
        config: the model's calibration.
        settings: the request's parameters.
        model_version: name and version of the model.

    Returns:
        Table with probability, study_probability, abnormal, uncertain, threshold, model_version and warnings; bad rows
        hold None.
    """
    threshold = config.threshold if settings.threshold is None else settings.threshold
    asked = Counter(view.study for view in views)
    readable = Counter(view.study for view in views if view.square is not None)
    study_probability = study_probabilities([view.study for view in views], logits, config.study_temperature)
    rows = []
    for view, logit, study in zip(views, logits, study_probability):
        row: dict[str, Any] = dict.fromkeys(("probability", "study_probability", "abnormal", "uncertain"))
        notes: list[str] = []
        if view.square is not None:
            row["probability"] = float(_sigmoid(logit / config.image_temperature))
            row["study_probability"] = float(study)
            row["abnormal"] = bool(study >= threshold)
            row["uncertain"] = _is_uncertain(float(study), config)
            notes = [*_study_warnings(readable[view.study], asked[view.study]), *view.warnings]
        rows.append({**row, "threshold": float(threshold), "model_version": model_version, "warnings": notes})
    return pd.DataFrame(rows, dtype=object if any(view.error for view in views) else None)


def study_probabilities(studies: Sequence[object], logits: np.ndarray, temperature: float) -> np.ndarray:
    """Calibrated probability of each row's study: the mean of its views' probabilities, tempered.

    Args:
        studies: what rows of one study share, [V].
        logits: float [V]; NaN rows do not count.
        temperature: divides the logit of the mean.

    Returns:
        float [V]; NaN for a study without a readable view.
    """
    values = np.asarray(logits, float)
    keys, unique = pd.factorize(pd.Series(list(studies), dtype=object))
    readable = np.isfinite(values)
    # In log space, as in evaluation.predict.to_studies: the mean of certain views rounds to 1, its logit does not.
    abnormal, normal = np.full(len(unique), -np.inf), np.full(len(unique), -np.inf)
    np.logaddexp.at(abnormal, keys[readable], -np.logaddexp(0, -values[readable]))
    np.logaddexp.at(normal, keys[readable], -np.logaddexp(0, values[readable]))
    with np.errstate(invalid="ignore"):  # a study without a readable view stays NaN
        return _sigmoid(((abnormal - normal) / temperature)[keys])


def _study_warnings(readable: int, asked: int) -> list[str]:
    found = ["single view"] if readable == 1 else []
    return [*found, f"{asked - readable} of the study's {asked} views could not be read"] if readable < asked else found


def _is_uncertain(probability: float, config: ServingConfig) -> bool:
    if config.uncertain_low is None or config.uncertain_high is None:
        return False
    return config.uncertain_low <= probability <= config.uncertain_high


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))))
