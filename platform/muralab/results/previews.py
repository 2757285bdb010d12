"""Grids of augmented synthetic images, which show what a recipe's strengths do; a patient's are never shown."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from muralab.data.augment import preview_grid
from muralab.data.images.decode import decode, to_square
from muralab.demo.dataset import example_study
from muralab.trial import TrialSpec, recipes_of

N_PREVIEWED = 4
"""Synthetic images per grid."""


def build_previews(specs: Iterable[TrialSpec]) -> dict[str, np.ndarray]:
    """Recipe -> grid of augmented images, at the strengths of that trial, uint8 [H, W]."""
    previews = {}
    for spec in specs:
        _, recipe = recipes_of(spec)
        images = [decode(view) for seed in range(N_PREVIEWED // 2) for view in example_study(seed)]
        squares = np.stack([to_square(image, recipe.image_size) for image in images])
        previews[spec.recipe] = preview_grid(squares, recipe.augment, columns=len(squares), seed=spec.seed)
    return previews
