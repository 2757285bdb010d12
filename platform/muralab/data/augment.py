"""Strengths of augmentation -> a deterministic function of a grey square and a seed.

What the study saw in the data (zoomed out, rotated, off-centre, uneven exposure) is what is drawn: zoom, rotation,
shift and flip act as one affine map, contrast and brightness as one table look-up. We draw the numbers and
albumentations' transforms apply them: its Compose, seeded anew for each image, costs half as much again.

Shapes: N images, S side in px, H W the grid.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muralab.errors import SettingsError

Square = npt.NDArray[np.uint8]
Augmenter = Callable[[Square, int], Square]

WHITE = 255.0


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far each operation may go; 0 (or False) turns it off."""

    zoom: float = 0.0
    """scale drawn from [1 - zoom, 1 + zoom]; in [0, 1)"""
    rotate_degrees: float = 0.0
    """angle drawn from +- this; in [0, 180]"""
    shift: float = 0.0
    """horizontal and vertical shift drawn from +- this fraction of the side; in [0, 1)"""
    contrast: float = 0.0
    """contrast factor drawn from 1 +- this, brightness from +- half of it, of the full range; in [0, 1)"""
    flip: bool = False
    """mirror left and right, every second time"""

    def __post_init__(self) -> None:
        limits = {"zoom": 1.0, "shift": 1.0, "contrast": 1.0, "rotate_degrees": 180.0}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0.0 <= value <= limit or (limit == 1.0 and value == limit):
                bracket = ")" if limit == 1.0 else "]"
                raise SettingsError(f"augment.{name} must be in [0, {limit:g}{bracket}, received {value}.")

    @property
    def moves(self) -> bool:
        """Whether it changes where pixels are."""
        return bool(self.zoom or self.rotate_degrees or self.shift or self.flip)

    @property
    def is_off(self) -> bool:
        """Whether it changes nothing at all."""
        return not (self.moves or self.contrast)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The numbers of one augmentation of one image."""

    scale: float
    """larger than 1 zooms in"""
    angle_degrees: float
    """positive turns counter-clockwise"""
    shift_x: float
    """to the right, in sides"""
    shift_y: float
    """downwards, in sides"""
    gain: float
    """contrast factor"""
    offset: float
    """brightness added, of the full range"""
    mirrored: bool
    """left and right swapped, before all else"""


def draw_augmentation(augment: Augment, seed: int) -> Draw:
    """The numbers that a seed stands for; each has its own place in the stream, so one strength moves no other draw."""
    uniform = random.Random(seed).uniform
    return Draw(
        scale=1.0 + augment.zoom * uniform(-1.0, 1.0),
        angle_degrees=augment.rotate_degrees * uniform(-1.0, 1.0),
        shift_x=augment.shift * uniform(-1.0, 1.0),
        shift_y=augment.shift * uniform(-1.0, 1.0),
        gain=1.0 + augment.contrast * uniform(-1.0, 1.0),
        offset=augment.contrast / 2.0 * uniform(-1.0, 1.0),
        mirrored=augment.flip and uniform(-1.0, 1.0) < 0.0,
    )


def build_augmenter(augment: Augment, size: int) -> Augmenter:
    """A function of (image uint8 [S, S], seed) that returns uint8 [S, S]; threads may share it.

    What comes in from outside the picture is black before contrast and brightness change. With all strengths off the
    picture itself comes back.

    Args:
        augment: the strengths.
        size: S, in px.
    """
    if augment.is_off:
        return lambda image, _seed: image
    # Its import looks for a newer version on the network unless this is set.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations
    import cv2

    # One square is too small to be shared between threads: they would only get in the way of other workers.
    cv2.setNumThreads(1)
    affine = albumentations.Affine(interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, fill=0, p=1.0)
    exposure = albumentations.RandomBrightnessContrast(p=1.0)

    def apply(image: Square, seed: int) -> Square:
        draw = draw_augmentation(augment, seed)
        if augment.moves:
            image = affine.apply(image, matrix=_matrix(draw, size), output_shape=(size, size))
        if augment.contrast:
            image = exposure.apply(image, alpha=draw.gain, beta=draw.offset * WHITE)
        return image

    return apply


def preview_grid(
    images: npt.NDArray[np.uint8], augment: Augment, *, columns: int = 8, draws: int = 3, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Pictures as they are in the first row, draws of each below it.

    Args:
        images: uint8 [N, S, S]; the first `columns` of them are shown.
        augment: the strengths.
        columns: pictures in a row.
        draws: rows of augmented pictures.
        seed: of the draws.

    Returns:
        uint8 [(1 + draws) * S, min(N, columns) * S]
    """
    if columns < 1 or draws < 0 or len(images) == 0:
        raise SettingsError(f"A preview needs images and columns, received {len(images)} images, {columns} columns.")
    shown = images[:columns]
    augmenter = build_augmenter(augment, shown.shape[1])
    drawn = [
        [augmenter(image, seed + row * columns + column) for column, image in enumerate(shown)] for row in range(draws)
    ]
    rows = [list(shown), *drawn]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def _matrix(draw: Draw, size: int) -> npt.NDArray[np.float64]:
    """The map from a picture's coordinates to the result's, about the centre, float64 [3, 3]."""
    centre = (size - 1) / 2.0
    angle = math.radians(draw.angle_degrees)
    cos, sin = draw.scale * math.cos(angle), draw.scale * math.sin(angle)
    mirror = -1.0 if draw.mirrored else 1.0
    right = centre + draw.shift_x * size - cos * mirror * centre - sin * centre
    down = centre + draw.shift_y * size + sin * mirror * centre - cos * centre
    return np.array([[cos * mirror, sin, right], [-sin * mirror, cos, down], [0.0, 0.0, 1.0]])
