"""The only preprocessing: bytes of a PNG, JPEG or DICOM -> grey uint8 square, in training and in the served model.

Shape legend: H height, W width, S side of the square.
"""

from __future__ import annotations

import cv2
import numpy as np

from muralab.data.images.dicom import decode_dicom
from muralab.data.images.picture import MAX_PIXELS, Picture
from muralab.data.images.raster import decode_raster
from muralab.errors import ImageError


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG, JPEG or DICOM file.

    16-bit images are scaled by their full range (DICOM: by their window, if one is stored), colour becomes luma,
    transparent pixels become black (not those of a transparent colour in 16-bit RGB), and a JPEG's EXIF orientation is
    applied.

    Args:
        data: the file's bytes.
        max_pixels: larger images are rejected from their header, before memory is allocated.

    Returns:
        Grey values, uint8 [H, W].

    Raises:
        ImageError: the bytes are not an image that can be evaluated; the text is the reason.
    """
    return decode_picture(data, max_pixels=max_pixels).grey


def decode_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode like `decode`, and measure how colourful the image is.

    Raises:
        ImageError: the bytes are not an image that can be evaluated; the text is the reason.
    """
    if not data:
        raise ImageError("zero bytes")
    if data[128:132] == b"DICM":
        return Picture(grey=decode_dicom(data, max_pixels=max_pixels))
    return decode_raster(data, max_pixels=max_pixels)


def to_square(grey: np.ndarray, size: int) -> np.ndarray:
    """Scale the longer side to `size`, keep the aspect ratio, and centre the image on black.

    Args:
        grey: uint8 [H, W].
        size: side of the square in px.

    Returns:
        uint8 [S, S].
    """
    height, width = grey.shape
    scale = size / max(height, width)
    new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((size, size), np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    resized = cv2.resize(grey, (new_width, new_height), interpolation=interpolation)
    square[top : top + new_height, left : left + new_width] = resized
    return square
