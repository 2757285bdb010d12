"""How finely a heat map is drawn: it has one value per cell of the network's last feature map, and no more.

Shape legend: h w height and width of the last feature map, S side of the picture that it is drawn on, in px.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

MIN_CELLS = 3
"""Cells a side below which a heat map says nothing about where: an InceptionV3 has 2 at 112 px, 8 at 299 px."""
SMOOTH_CELLS = 7
"""Cells a side from which it is drawn smoothly; below, as the grid that it is."""


def is_too_coarse(shape: Sequence[int]) -> bool:
    """Whether a map [h, w] has too few cells to be shown."""
    return min(shape) < MIN_CELLS


def enlarge(heat: np.ndarray, side: int) -> np.ndarray:
    """A map [h, w] of at least 0 as shares of its peak, 0 to 1, float [S, S]; zeros stay zeros."""
    peak = float(heat.max())
    interpolation = cv2.INTER_LINEAR if min(heat.shape) >= SMOOTH_CELLS else cv2.INTER_NEAREST
    cells = cv2.resize(heat / peak if peak > 0 else heat, (side, side), interpolation=interpolation)
    return np.asarray(np.clip(cells, 0, 1))


def coarse_reason(shape: Sequence[int]) -> str:
    """Why a map [h, w] is not shown."""
    return f"no heat map: the network sees a view in {shape[0]} x {shape[1]} cells only"
