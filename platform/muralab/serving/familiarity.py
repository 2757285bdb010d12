"""How far an image is from the training images: in the network's own features, and in grey values and texture.

A network answers anything: a photo, noise, another body part. Its pooled features show that such an image is none of
those that it was trained on: the cosine distance to its nearest training images is larger than that of images which
are (deep nearest neighbours: Sun, Ming, Zhu and Li 2022, arXiv:2204.06507). `appearance` compares without a network.
The limits are set by validation images, which the network was not trained on (of an ensemble: most of its networks
were, so it warns a little more often).

Shapes: N training images, B images, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muralab.serving.appearance import Appearance, fit_appearance

NEIGHBOURS = 3
"""The distance is that to the third nearest training image, so that one odd training image makes nothing familiar."""
RATE = 0.005
"""Share of images like the validation images that each of the two distances may warn about."""
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
    appearance: Appearance | None = None
    """None in models that were registered without it."""

    def distances(self, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Cosine distance of B images to their third nearest training image, from 0 to 2.

        Args:
            features: pooled features of the network, float [B, D].
        """
        nearest = np.sort(1.0 - unit(np.asarray(features, dtype=np.float32)) @ self.bank.T, axis=1)
        return np.asarray(nearest[:, min(NEIGHBOURS, nearest.shape[1]) - 1], dtype=np.float64)

    def warnings(self, features: npt.ArrayLike, squares: npt.NDArray[np.uint8]) -> list[str]:
        """A warning for each of B images, empty for familiar ones.

        Args:
            features: pooled features of the network, float [B, D].
            squares: its input, uint8 [B, S, S].
        """
        found = {"feature distance": self.distances(features) / self.limit}
        if self.appearance is not None:
            found["grey-value and texture distance"] = self.appearance.distances(squares) / self.appearance.limit
        return [
            _warning({name: ratio for name, ratio in zip(found, ratios) if not ratio <= 1})  # also where it is NaN
            for ratios in zip(*(ratios.tolist() for ratios in found.values()))
        ]


def _warning(beyond: Mapping[str, float]) -> str:
    ratios = ", ".join(f"{name} {ratio:.1f} times its limit" for name, ratio in beyond.items())
    return f"unlike the training images ({ratios})" if beyond else ""


def fit_familiarity(
    train: npt.ArrayLike,
    validation: npt.ArrayLike,
    *,
    train_squares: npt.NDArray[np.uint8],
    validation_squares: npt.NDArray[np.uint8],
) -> Familiarity | None:
    """Set the limits so that of images like the validation images about 1% lie beyond one of them.

    With n validation images a limit is the smallest of their distances that at least 99.5% of n + 1 do not exceed (a
    conformal quantile), or the largest of them where n < 199.

    Args:
        train: features of training images, float [N, D].
        validation: features of validation images, float [M, D].
        train_squares: the same training images, uint8 [N, S, S].
        validation_squares: the same validation images, uint8 [M, S, S].

    Returns:
        None with fewer than `MIN_IMAGES` of either, or where all distances are 0.
    """
    bank, others = np.asarray(train, dtype=np.float32), np.asarray(validation, dtype=np.float32)
    if min(len(bank), len(others)) < MIN_IMAGES:
        return None
    unlimited = Familiarity(bank=unit(bank), limit=math.inf, n_validation=len(others))
    limit = conformal_limit(unlimited.distances(others))
    if not limit > 0:
        return None
    known = fit_appearance(train_squares)
    known = replace(known, limit=conformal_limit(known.distances(validation_squares)))
    return replace(unlimited, limit=limit, appearance=known if known.limit > 0 else None)


def conformal_limit(distances: npt.NDArray[np.float64]) -> float:
    """What all but about `RATE` of further distances like these do not exceed."""
    place = min(math.ceil((1 - RATE) * (len(distances) + 1)), len(distances))
    return float(np.sort(distances)[place - 1])


def unit(features: Floats) -> Floats:
    """Features divided by their length, in the same shape; zeros stay zeros."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def write_familiarity(familiarity: Familiarity, path: Path) -> None:
    """Write the file that `read_familiarity` reads, without pickle; features in half precision."""
    arrays: dict[str, Any] = {
        "bank": familiarity.bank.astype(np.float16),
        "limit": np.float64(familiarity.limit),
        "n_validation": np.int64(familiarity.n_validation),
        **_appearance_arrays(familiarity.appearance),
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _appearance_arrays(appearance: Appearance | None) -> dict[str, npt.NDArray[np.float64]]:
    if appearance is None:
        return {}
    values = {"mean": appearance.mean, "precision": appearance.precision, "limit": appearance.limit}
    return {f"appearance_{name}": np.asarray(value) for name, value in values.items()}


def read_familiarity(path: Path) -> Familiarity:
    """Read the file of a registered model."""
    with np.load(path, allow_pickle=False) as stored:
        appearance = None
        if "appearance_mean" in stored:
            appearance = Appearance(
                mean=stored["appearance_mean"],
                precision=stored["appearance_precision"],
                limit=float(stored["appearance_limit"]),
            )
        return Familiarity(
            bank=unit(stored["bank"].astype(np.float32)),
            limit=float(stored["limit"]),
            n_validation=int(stored["n_validation"]),
            appearance=appearance,
        )
