"""Logits of a request's views -> calibrated answers, study by study, with what a reader should know about each view.

Shape legend: V views (rows) of a request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from muralab.data.pixels import Picture
from muralab.serving.config import ServingConfig
from muralab.serving.request import Settings, View

COLOUR_SPREAD = 12.0
"""Mean difference between colour channels (0 to 255) from which a picture is a colour photo, not a tinted scan."""

LOW_CONTRAST = 40.0
"""Grey levels between the 1st and the 99th percentile below which a picture has low contrast."""

BLANK = 2.0
"""Grey levels between those percentiles up to which a picture is blank."""

_EPSILON = 1e-7


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
    readable = Counter(view.study for view in views if view.picture is not None)
    study_probability = study_probabilities([view.study for view in views], logits, config.study_temperature)
    rows = []
    for view, logit, study in zip(views, logits, study_probability):
        row: dict[str, Any] = dict.fromkeys(("probability", "study_probability", "abnormal", "uncertain"))
        notes: list[str] = []
        if view.picture is not None:
            row["probability"] = float(_sigmoid(logit / config.image_temperature))
            row["study_probability"] = float(study)
            row["abnormal"] = bool(study >= threshold)
            row["uncertain"] = _is_uncertain(float(study), config)
            notes = _study_warnings(readable[view.study], asked[view.study]) + view_warnings(view.picture, config)
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
    keys = pd.factorize(pd.Series(list(studies), dtype=object))[0]
    mean = pd.Series(_sigmoid(np.asarray(logits, float))).groupby(keys).transform("mean").to_numpy()
    mean = np.clip(mean, _EPSILON, 1 - _EPSILON)
    return _sigmoid((np.log(mean) - np.log1p(-mean)) / temperature)


def view_warnings(picture: Picture, config: ServingConfig) -> list[str]:
    """What a reader should know about one view."""
    grey = picture.grey
    low, high = np.percentile(grey[:: max(1, grey.shape[0] // 256), :: max(1, grey.shape[1] // 256)], [1, 99])
    found = []
    if high - low <= BLANK:
        found.append("blank picture")
    elif high - low < LOW_CONTRAST:
        found.append("low contrast")
    if picture.colour_spread > COLOUR_SPREAD:
        found.append("colour photo, not a radiograph")
    if max(grey.shape) < config.image_size // 2:
        found.append(f"small picture ({grey.shape[1]} x {grey.shape[0]} px)")
    if config.synthetic:
        found.append("model trained on synthetic pictures")
    return found


def distribution_warnings(square: np.ndarray, config: ServingConfig) -> list[str]:
    """Whether the network's input lies far from what it was trained on.

    Args:
        square: uint8 [S, S].
        config: the ranges of the training pictures.
    """
    seen = ((float(square.mean()), config.typical_mean), (float(square.std()), config.typical_contrast))
    far = any(limits is not None and not limits[0] <= value <= limits[1] for value, limits in seen)
    return ["far from the training pictures in brightness or contrast"] if far else []


def _study_warnings(readable: int, asked: int) -> list[str]:
    found = ["single view"] if readable == 1 else []
    return [*found, f"{asked - readable} of the study's {asked} views could not be read"] if readable < asked else found


def _is_uncertain(probability: float, config: ServingConfig) -> bool:
    if config.uncertain_low is None or config.uncertain_high is None:
        return False
    return config.uncertain_low <= probability <= config.uncertain_high


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))))
