"""Previews of augmentation."""

from __future__ import annotations

import numpy as np

from muralab.results.previews import build_strength_previews


def test_each_strength_is_shown_off_at_half_and_at_full() -> None:
    for name, grid in build_strength_previews(size=64).items():
        original, half, full = np.split(grid, 3)
        assert (original != half).any(), name
        assert np.abs(full.astype(int) - original).mean() >= np.abs(half.astype(int) - original).mean(), name
