"""How far an image is from the training images in the network's own features.

A network answers anything: a photo, noise, another body part. Its pooled features show that such an image is none of
those that it was trained on: the cosine distance to its nearest training images is larger than that of images which
are (deep nearest neighbours: Sun, Ming, Zhu and Li 2022, arXiv:2204.06507). The limit is set by validation images,
which the network was not trained on.

Shapes: N training images, B images, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 3
"""The distance is that to the third nearest training image, so that one odd training image makes nothing familiar."""
RATE = 0.01
"""Share of images like the validation images that may be warned about."""
MIN_IMAGES = 20
"""With fewer training or validation images there is no limit."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Familiarity:
    """What a model knows of its training images: their features, and how far other images of their kind are."""

    bank: Floats
    """Features of training images, each of length 1: float32 [N, D]."""
    limit: float
    """Cosine distance beyond which an image is called unlike the training images."""
    n_validation: int
    """Images that the limit was set on."""

    def distances(self, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Cosine distance of B images to their third nearest training image, from 0 to 2.

        Args:
            features: pooled features of the network, float [B, D].
        """
        nearest = np.sort(1.0 - unit(np.asarray(features, dtype=np.float32)) @ self.bank.T, axis=1)
        return np.asarray(nearest[:, min(NEIGHBOURS, nearest.shape[1]) - 1], dtype=np.float64)

    def warnings(self, features: npt.ArrayLike) -> list[str]:
        """A warning for each of B images, empty for familiar ones."""
        return [
            f"unlike the training images (feature distance {distance / self.limit:.1f} times the limit)"
            if distance > self.limit
            else ""
            for distance in self.distances(features).tolist()
        ]


def fit_familiarity(train: npt.ArrayLike, validation: npt.ArrayLike) -> Familiarity | None:
    """Set the limit so that of images like the validation images about 1 % lie beyond it.

    With n validation images it is the smallest of their distances that at least 99 % of n + 1 do not exceed (a
    conformal quantile), or the largest of them where n < 99.

    Args:
        train: features of training images, float [N, D].
        validation: features of validation images, float [M, D].

    Returns:
        None with fewer than `MIN_IMAGES` of either, or where all distances are 0.
    """
    bank, others = np.asarray(train, dtype=np.float32), np.asarray(validation, dtype=np.float32)
    if min(len(bank), len(others)) < MIN_IMAGES:
        return None
    unlimited = Familiarity(bank=unit(bank), limit=math.inf, n_validation=len(others))
    distances = np.sort(unlimited.distances(others))
    place = min(math.ceil((1 - RATE) * (len(distances) + 1)), len(distances))
    limit = float(distances[place - 1])
    if not limit > 0:
        return None
    return Familiarity(bank=unlimited.bank, limit=limit, n_validation=len(others))


def unit(features: Floats) -> Floats:
    """Features divided by their length, in the same shape; zeros stay zeros."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def write_familiarity(familiarity: Familiarity, path: Path) -> None:
    """Write the file that `read_familiarity` reads, without pickle; features in half precision."""
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            bank=familiarity.bank.astype(np.float16),
            limit=np.float64(familiarity.limit),
            n_validation=np.int64(familiarity.n_validation),
        )


def read_familiarity(path: Path) -> Familiarity:
    """Read the file of a registered model."""
    with np.load(path, allow_pickle=False) as stored:
        return Familiarity(
            bank=unit(stored["bank"].astype(np.float32)),
            limit=float(stored["limit"]),
            n_validation=int(stored["n_validation"]),
        )
