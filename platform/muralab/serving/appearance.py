"""How far an image is from the training images in its grey values and its texture, whatever the network makes of them.

A network's features tell apart what it was trained to tell apart: of a photo or of another body part they may say
little. So an image is also described without a network, by 18 numbers, and its Mahalanobis distance to the training
images (Lee, Lee, Lee and Shin 2018, arXiv:1807.03888, there in a network's features) must not exceed what validation
images reach. These descriptors are the square roots of a histogram of 8 grey values, the power in 8 rings of spatial
frequency, and how steep edges are, on average and at the 95th percentile.

Shapes: B images of S x S px; K = 18 descriptors.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 64
"""Images are compared at this side in px, so that the descriptors do not depend on the network's input size."""
BINS = RINGS = 8
FLOOR = np.repeat([0.02, 0.05], [BINS, RINGS + 2])
"""Smallest standard deviation of each descriptor: a grey value that no training image has is not infinitely far."""
SHRINKAGE = 0.05
"""Added to the variance of each standardised descriptor: few training images would make some directions too narrow."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Appearance:
    """The grey values and textures of training images, and how far other images of their kind are from them."""

    mean: Floats
    """[K]"""
    precision: Floats
    """Inverse covariance, [K, K]."""
    limit: float
    """Distance beyond which an image is called unlike the training images."""

    def distances(self, squares: npt.NDArray[np.uint8]) -> Floats:
        """Mahalanobis distance of B images from the training images, 0 or more.

        Args:
            squares: uint8 [B, S, S].
        """
        deviation = compute_descriptors(squares) - self.mean
        return np.asarray(np.sqrt(np.einsum("bi,ij,bj->b", deviation, self.precision, deviation)), dtype=np.float64)


def fit_appearance(train: npt.NDArray[np.uint8]) -> Appearance:
    """The distribution of training images, without a limit yet.

    Args:
        train: uint8 [N, S, S].
    """
    descriptors = compute_descriptors(train)
    scale = np.maximum(descriptors.std(axis=0), FLOOR)
    standardised = (descriptors - descriptors.mean(axis=0)) / scale
    covariance = np.cov(standardised.T) + SHRINKAGE * np.eye(len(scale))
    precision = np.linalg.inv(covariance) / np.outer(scale, scale)
    return Appearance(mean=descriptors.mean(axis=0), precision=precision, limit=float("inf"))


def compute_descriptors(squares: npt.NDArray[np.uint8]) -> Floats:
    """The K descriptors of each image, float [B, K].

    Args:
        squares: uint8 [B, S, S].
    """
    return np.stack([_describe(square) for square in squares])


def _describe(square: npt.NDArray[np.uint8]) -> Floats:
    pixels = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64) / 255.0
    shares = np.histogram(pixels, bins=BINS, range=(0.0, 1.0))[0] / pixels.size
    power = np.abs(np.fft.rfft2((pixels - pixels.mean()) * _WINDOW)).ravel() ** 2
    rings = np.bincount(_RING, weights=power, minlength=RINGS + 2)[1 : RINGS + 1] / _RING_SIZE
    down, right = np.gradient(pixels)
    steepness = np.hypot(down, right)
    edges = np.array([steepness.mean(), np.percentile(steepness, 95)])
    return np.concatenate([np.sqrt(shares), np.log10(rings + 1e-6), np.log10(edges + 1e-4)])


def _ring_of_frequency() -> npt.NDArray[np.int64]:
    """The ring of each frequency of `rfft2`, from 1; 0 and RINGS + 1 are outside."""
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) * SIDE
    return np.asarray(np.digitize(radius, np.geomspace(1.0, SIDE / 2, RINGS + 1)).ravel(), dtype=np.int64)


_WINDOW = np.outer(np.hanning(SIDE), np.hanning(SIDE))
_RING = _ring_of_frequency()
_RING_SIZE = np.bincount(_RING, minlength=RINGS + 2)[1 : RINGS + 1]
