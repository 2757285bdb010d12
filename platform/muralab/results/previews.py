"""Grids of augmented synthetic images, which show what strengths do; a patient's are never shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from muralab.data.augment import Augment, preview_grid
from muralab.data.images.decode import decode, to_square
from muralab.demo.dataset import example_study
from muralab.trial import TrialSpec, recipes_of

N_PREVIEWED = 4
"""Synthetic images per grid."""
PREVIEW_SIZE = 160
"""Side in px of the images in a preview of one strength."""
STRONG = {"zoom": 0.3, "rotate_degrees": 40.0, "shift": 0.2, "contrast": 0.4}
"""The upper ends of the recipes' search ranges; other strengths are shown at 1."""


def build_previews(specs: Iterable[TrialSpec]) -> dict[str, np.ndarray]:
    """Recipe -> grid of augmented images, at the strengths of that trial, uint8 [H, W]."""
    previews = {}
    for spec in specs:
        _, recipe = recipes_of(spec)
        squares = _synthetic_squares(recipe.image_size)
        previews[spec.recipe] = preview_grid(squares, recipe.augment, columns=len(squares), seed=spec.seed)
    return previews


def build_strength_previews(size: int = PREVIEW_SIZE) -> dict[str, np.ndarray]:
    """Strength -> grid of images as they are, at half and at full strength, uint8 [3 * size, N * size]."""
    squares = _synthetic_squares(size)
    previews = {}
    for name in [field.name for field in dataclasses.fields(Augment) if field.type == "float"]:
        strong = STRONG.get(name, 1.0)
        half, full = (_preview_strength(squares, {name: value}) for value in (strong / 2, strong))
        previews[name] = np.concatenate([half, full[size:]])
    return previews


def _preview_strength(squares: np.ndarray, strength: Mapping[str, Any]) -> np.ndarray:
    return preview_grid(squares, Augment(**strength), columns=len(squares), draws=1)


def _synthetic_squares(size: int) -> np.ndarray:
    """Synthetic radiographs, uint8 [N_PREVIEWED, size, size]."""
    images = [decode(view) for seed in range(N_PREVIEWED // 2) for view in example_study(seed)]
    return np.stack([to_square(image, size) for image in images])
