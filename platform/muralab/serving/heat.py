"""How finely a heat map is drawn: it has one value per cell of the network's last feature map, and no more.

Shape legend: h w height and width of the last feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2

MIN_CELLS = 3
"""Cells a side below which a heat map says nothing about where: an InceptionV3 has 2 at 112 px, 8 at 299 px."""
SMOOTH_CELLS = 7
"""Cells a side from which it is drawn smoothly; below, as the grid that it is."""


def is_too_coarse(shape: Sequence[int]) -> bool:
    """Whether a map [h, w] has too few cells to be shown."""
    return min(shape) < MIN_CELLS


def interpolation(shape: Sequence[int]) -> int:
    """OpenCV's interpolation for a map [h, w]."""
    return int(cv2.INTER_LINEAR if min(shape) >= SMOOTH_CELLS else cv2.INTER_NEAREST)


def coarse_reason(shape: Sequence[int]) -> str:
    """Why a map [h, w] is not shown."""
    return f"no heat map: the network sees a view in {shape[0]} x {shape[1]} cells only"
