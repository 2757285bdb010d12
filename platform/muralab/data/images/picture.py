"""What every decoder shares: the decoded image, its size limits and short error reasons.

Shape legend: H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muralab.data.images.value_range import StoredValues
from muralab.errors import ImageError

MAX_PIXELS = 50_000_000
"""Larger images are rejected from their header; the largest radiographs have about 20 million pixels."""

MIN_SIDE = 16
"""In px; images with a shorter side hold nothing that a model could classify."""

STRIP_ROWS = 512
"""Rows converted to grey at a time, so that a large image never exists twice at its full bit depth."""

MAX_REASON_LENGTH = 120


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded image."""

    grey: np.ndarray
    """uint8 [H, W]."""

    colour_spread: float = 0.0
    """Mean difference between a pixel's largest and smallest colour channel, 0 to 255; 0 for grey stored as RGB."""

    stored: StoredValues | None = None
    """The file's values, where the file does not say which are black and white; None where it does, or has 8 bits."""

    notes: tuple[str, ...] = ()
    """What in the file's header was unusable and therefore ignored."""

    body_part: str = ""
    """What a DICOM file names as the part that it shows, as it is written there; free text."""

    patient: str = ""
    """PatientID of a DICOM file."""

    study: str = ""
    """StudyInstanceUID of a DICOM file."""

    burned_in: bool = False
    """Whether a DICOM file says that names may be burned into its pixels (BurnedInAnnotation)."""


def check_size(width: int, height: int, *, max_pixels: int) -> None:
    """Reject an image by the size in its header.

    Raises:
        ImageError: a side is shorter than `MIN_SIDE` px, or there are more than `max_pixels` pixels.
    """
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} px is too small, each side must have at least {MIN_SIDE} px")
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} px is too large, at most {max_pixels / 1e6:g} million pixels are read")


def short_reason(error: Exception) -> str:
    """The first line of an error's text, truncated; its type if it has no text."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:MAX_REASON_LENGTH]
