"""Warnings about a view: blank, low contrast, in colour, small, of another value range, unlike the training images.

Shape legend: S side of the network input.
"""

from __future__ import annotations

import numpy as np

from muralab.data.images.picture import Picture
from muralab.data.images.value_range import misfit
from muralab.serving.body_part import contradiction
from muralab.serving.config import ServingConfig

COLOUR_SPREAD = 12.0
"""Mean difference between colour channels (0 to 255) above which an image is a colour photo, not a tinted scan."""

LOW_CONTRAST = 40.0
"""Grey levels between the 1st and the 99th percentile below which an image has low contrast."""

BLANK = 2.0
"""Grey levels between those percentiles up to which an image is blank."""


def view_warnings(picture: Picture, square: np.ndarray, config: ServingConfig) -> list[str]:
    """Warn about one view.

    Args:
        picture: the decoded image.
        square: the network input, uint8 [S, S].
        config: configuration of the model.
    """
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
    if picture.stored is not None and (problem := misfit(picture.stored, config.value_range)):
        found.append(problem)
    found += picture.notes
    found += filter(None, [contradiction(picture.body_part, config.part)])
    if config.synthetic:
        found.append("model trained on synthetic pictures")
    return found + _distribution_warnings(square, config)


def _distribution_warnings(square: np.ndarray, config: ServingConfig) -> list[str]:
    """Warn when the network input is far from the training images."""
    seen = ((float(square.mean()), config.typical_mean), (float(square.std()), config.typical_contrast))
    far = any(limits is not None and not limits[0] <= value <= limits[1] for value, limits in seen)
    return ["far from the training pictures in brightness or contrast"] if far else []
