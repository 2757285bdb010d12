"""The only preprocessing: bytes of a picture file -> grey uint8 square, in training and in the served model.

Shape legend: H height, W width, S side of the square.
"""

from __future__ import annotations

import cv2
import numpy as np

from muralab.data.images.dicom import decode_dicom
from muralab.data.images.kind import DICOM, HEAD_BYTES, describe, kind_of
from muralab.data.images.picture import MAX_PIXELS, Picture
from muralab.data.images.raster import decode_raster
from muralab.data.images.value_range import ValueRange
from muralab.errors import ImageError

Area = tuple[int, int, int, int]
"""Top, left, height and width in px of an image within its square."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, value_range: ValueRange | None = None) -> np.ndarray:
    """Decode a PNG, JPEG, TIFF, BMP or DICOM file.

    Values of more than 8 bits are scaled by the range of the data set, or else by the full range of their file type
    (DICOM: by their window or lookup table, if one is stored); colour becomes luma, transparent pixels become black,
    and the orientation in EXIF data is applied.

    Args:
        data: the file's bytes.
        max_pixels: larger images are rejected from their header, before memory is allocated.
        value_range: of the data set, see `value_range.smallest_range`; None: unknown.

    Returns:
        Grey values, uint8 [H, W].

    Raises:
        ImageError: the bytes are not an image that can be evaluated; the text is the reason.
    """
    return decode_picture(data, max_pixels=max_pixels, value_range=value_range).grey


def decode_picture(data: bytes, *, max_pixels: int = MAX_PIXELS, value_range: ValueRange | None = None) -> Picture:
    """Decode like `decode`, and say what else is known about the image: colours, stored values, ignored headers.

    Raises:
        ImageError: the bytes are not an image that can be evaluated; the text is the reason.
    """
    if not data:
        raise ImageError("zero bytes")
    head = data[:HEAD_BYTES]
    kind = kind_of(head)
    if not kind:
        raise ImageError(f"not a PNG, JPEG, TIFF, BMP or DICOM file, but {describe(head)}")
    if kind == DICOM:
        return decode_dicom(data, max_pixels=max_pixels, value_range=value_range)
    return decode_raster(data, kind, max_pixels=max_pixels, value_range=value_range)


def to_square(grey: np.ndarray, size: int) -> np.ndarray:
    """Scale the longer side to `size`, keep the aspect ratio, and centre the image on black.

    Args:
        grey: uint8 [H, W].
        size: side of the square in px.

    Returns:
        uint8 [S, S].
    """
    top, left, height, width = area_in_square(size, width=grey.shape[1], height=grey.shape[0])
    interpolation = cv2.INTER_AREA if size < max(grey.shape) else cv2.INTER_LINEAR
    square = np.zeros((size, size), np.uint8)
    square[top : top + height, left : left + width] = cv2.resize(grey, (width, height), interpolation=interpolation)
    return square


def area_in_square(side: int, *, width: int, height: int) -> Area:
    """Where `to_square` puts an image of a size in px; the rest of the square is black."""
    scale = side / max(width, height)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    return (side - new_height) // 2, (side - new_width) // 2, new_height, new_width
