"""Strengths of augmentation -> a deterministic function of a grey square and a seed.

The operations, in the order in which they are applied:

1. zoom, rotation, shift and flip, as one affine map (cv2); what comes from outside the image is black
2. elastic deformation (albumentations, as all below except 3)
3. contrast and brightness, as one look-up table (cv2)
4. gamma, local contrast (CLAHE), blur, noise, cutout

Each strength has its own random numbers: changing one strength does not change the draws of another.
The affine map may read from larger squares, so that what it interpolates has more detail than its result.

Shapes: N images, S side of the result in px.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from muralab.errors import SettingsError

Square = npt.NDArray[np.uint8]
Augmenter = Callable[[Square, int], Square]

WHITE = 255.0


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far each operation may go; 0 (or False) turns it off.

    The strengths from `gamma` on are in [0, 1]. At 1 an operation is as strong as it may be without changing the label:
    a thin dark line in bright bone, such as a fracture, stays visible.
    """

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
    gamma: float = 0.0
    """exponent drawn from 1 +- 0.4 at 1: brighter stays brighter, and local contrast stays above half (except below a
    tenth of the full range)"""
    noise: float = 0.0
    """Gaussian noise, standard deviation drawn up to 5% of the full range at 1: averaged over the 20 pixels of a short
    line that is only 1%"""
    blur: float = 0.0
    """Gaussian blur, standard deviation drawn up to 1 px at 1: a line 1 px wide keeps 38% of its contrast, one of 2 px
    68%"""
    clahe: float = 0.0
    """contrast-limited adaptive histogram equalisation, limit drawn from 1 to 3 at 1: local contrast grows at most
    fourfold and is not inverted; in 8 x 8 tiles, fewer where tiles would be smaller than 32 px"""
    cutout: float = 0.0
    """one black rectangle, sides drawn up to 15% of the image side at 1, so at most 2% of the area; it can hide a
    finding that is smaller than that"""
    elastic: float = 0.0
    """smooth random displacement, standard deviation 0.5% of the side at 1 (at most about 3%): local stretching has a
    standard deviation of 10% and stays below 100%, where the image would fold, so lines bend but do not break; the
    slowest operation, 9 ms of CPU time at 299 px (the others take less than 0.5 ms)"""

    def __post_init__(self) -> None:
        below_1 = ("zoom", "shift", "contrast")
        for name in (*below_1, "rotate_degrees", *TRANSFORMS):
            value, limit = getattr(self, name), 180.0 if name == "rotate_degrees" else 1.0
            if not 0.0 <= value <= limit or (name in below_1 and value == limit):
                bracket = ")" if name in below_1 else "]"
                raise SettingsError(f"augment.{name} must be in [0, {limit:g}{bracket}, received {value}.")

    @property
    def moves(self) -> bool:
        """Whether the affine map is on."""
        return bool(self.zoom or self.rotate_degrees or self.shift or self.flip)

    @property
    def is_off(self) -> bool:
        """Whether every operation is off."""
        return not (self.moves or self.contrast or any(getattr(self, name) for name in TRANSFORMS))


def _elastic(library: Any, strength: float, size: int) -> Any:
    """Elastic transform of an image with a margin: at the border of its input it moves pixels twenty times as far."""
    sigma = max(1.0, size / 30)
    return library.Compose(
        [
            library.Pad(padding=math.ceil(3 * sigma), p=1.0),
            library.ElasticTransform(
                # Uniform noise blurred by sigma has a standard deviation of 0.163 / sigma.
                alpha=strength * 0.005 * size * sigma / 0.163,
                sigma=sigma,
                noise_distribution="uniform",
                p=1.0,
            ),
            library.CenterCrop(size, size, p=1.0),
        ]
    )


# Functions of (albumentations, strength in (0, 1], S) that build a transform; p=1 applies it to every image.
# The index in this table selects the stream of random numbers: append new transforms at the end.
TRANSFORMS: Mapping[str, Callable[[Any, float, int], Any]] = {
    "elastic": _elastic,
    "gamma": lambda library, strength, _: library.RandomGamma(
        gamma_limit=(100 - 40 * strength, 100 + 40 * strength), p=1.0
    ),
    "clahe": lambda library, strength, size: library.CLAHE(
        clip_limit=(1.0, 1.0 + 2.0 * strength), tile_grid_size=(min(8, max(1, size // 32)),) * 2, p=1.0
    ),
    "blur": lambda library, strength, _: library.GaussianBlur(blur_limit=0, sigma_limit=(0.01, strength), p=1.0),
    "noise": lambda library, strength, _: library.GaussNoise(std_range=(0.0, 0.05 * strength), p=1.0),
    "cutout": lambda library, strength, _: library.CoarseDropout(
        num_holes_range=(1, 1), hole_height_range=(0.0, 0.15 * strength), hole_width_range=(0.0, 0.15 * strength), p=1.0
    ),
}


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random numbers of the affine map and of contrast and brightness, for one image."""

    scale: float
    """above 1 zooms in"""
    angle_degrees: float
    """positive is counter-clockwise"""
    shift_x: float
    """to the right, as a fraction of the side"""
    shift_y: float
    """downwards, as a fraction of the side"""
    gain: float
    """contrast factor"""
    offset: float
    """brightness added, as a fraction of the full range"""
    mirrored: bool
    """left and right swapped, before everything else"""


def draw_augmentation(augment: Augment, seed: int) -> Draw:
    """Draw the numbers for a seed; each has a fixed place in the stream, whatever the other strengths are."""
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


class _Transforms:
    """Applies some of TRANSFORMS, in order; those with strength 0 are skipped.

    A transform holds its random state, so every thread builds its own transforms and seeds them for each image.
    """

    def __init__(self, augment: Augment, size: int, names: Sequence[str]) -> None:
        self.strengths = {name: getattr(augment, name) for name in names if getattr(augment, name)}
        self.size = size
        self.own = threading.local()

    def __call__(self, image: Square, seed: int) -> Square:
        if not self.strengths:
            return image
        if not hasattr(self.own, "transforms"):
            self.own.transforms = self._build()
        for index, transform in self.own.transforms:
            transform.set_random_seed(256 * seed + index)
            image = transform(image=image)["image"]
        return image

    def _build(self) -> list[tuple[int, Any]]:
        # Its import looks for a newer version on the network unless this is set.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        order = list(TRANSFORMS)
        return [
            (order.index(name), TRANSFORMS[name](albumentations, strength, self.size))
            for name, strength in self.strengths.items()
        ]


def build_augmenter(augment: Augment, size: int, *, source: int | None = None) -> Augmenter:
    """Build a function of (image, seed) that returns uint8 [S, S]; threads may share it.

    With all strengths off it returns an image of that size itself.

    Args:
        augment: the strengths.
        size: S, in px.
        source: side of the images uint8 [source, source] that it is given, in px; None: S.
    """
    source = source or size
    if augment.is_off and source == size:
        return lambda image, _seed: image
    # One square is too small to be worth several threads: they would only take cores from other workers.
    cv2.setNumThreads(1)
    deform = _Transforms(augment, size, ["elastic"])
    degrade = _Transforms(augment, size, ["gamma", "clahe", "blur", "noise", "cutout"])

    def apply(image: Square, seed: int) -> Square:
        draw = draw_augmentation(augment, seed)
        if augment.moves:
            matrix = _matrix(draw, size, source)
            image = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)
        elif source != size:
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        image = deform(image, seed)
        if augment.contrast:
            image = cv2.LUT(image, _levels(draw))
        return degrade(image, seed)

    return apply


def preview_grid(
    images: npt.NDArray[np.uint8], augment: Augment, *, columns: int = 8, draws: int = 3, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Arrange images in a grid: the originals in the first row, augmented draws of each below.

    Args:
        images: uint8 [N, S, S]; the first `columns` of them are shown.
        augment: the strengths.
        columns: images per row.
        draws: rows of augmented images.
        seed: of the draws.

    Returns:
        uint8 [(1 + draws) * S, min(N, columns) * S]

    Raises:
        SettingsError: there are no images or no columns.
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


def _matrix(draw: Draw, size: int, source: int) -> npt.NDArray[np.float64]:
    """Affine map from coordinates of the image to those of the result, about the centre, float64 [2, 3]."""
    centre, shrink = (size - 1) / 2.0, size / source
    angle = math.radians(draw.angle_degrees)
    cos, sin = draw.scale * math.cos(angle), draw.scale * math.sin(angle)
    mirror = -1.0 if draw.mirrored else 1.0
    right = centre + draw.shift_x * size - cos * mirror * centre - sin * centre
    down = centre + draw.shift_y * size + sin * mirror * centre - cos * centre
    matrix = np.array([[cos * mirror, sin, right], [-sin * mirror, cos, down]])
    # Centres of pixels: those of the first pixel of both squares are half a pixel of their own from the corner.
    shrinking = np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]])
    return np.asarray(matrix @ shrinking, dtype=np.float64)


def _levels(draw: Draw) -> Square:
    """Result of contrast and brightness for each grey level, uint8 [256]."""
    levels = np.arange(256, dtype=np.float32) * draw.gain + draw.offset * WHITE
    table: Square = np.clip(levels, 0, WHITE).astype(np.uint8)
    return table
