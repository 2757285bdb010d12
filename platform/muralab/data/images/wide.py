"""Pictures of more than 8 bits per value from PNG and TIFF files, which do not say which values are black and white.

Shape legend: H height, W width, C colour channels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from muralab.data.images.picture import STRIP_ROWS, Picture
from muralab.data.images.png import check_rows, read_transparent_colour
from muralab.data.images.value_range import StoredValues, ValueRange, black_and_white
from muralab.errors import ImageError

_LUMA = np.array([7471, 38470, 19595], np.uint32)
"""Weights of blue, green and red in 65,536ths (ITU-R 601), as Pillow has them."""
_COLOUR_BITS, _COLOUR_STRIP_ROWS = 16, STRIP_ROWS // 8
_STRIDE = 8


def scale_wide(
    image: Any, bits: int, value_range: ValueRange | None, *, transparent: int | None, inverted: bool
) -> Picture:
    """Convert grey values to uint8, strip by strip.

    Args:
        image: Pillow's, loaded, of values of at most 16 bits, 0 or more.
        bits: of each value in the file.
        value_range: of the data set, see `value_range.black_and_white`.
        transparent: this value becomes black.
        inverted: whether 0 is white.
    """
    scale = _Scale(bits, value_range)
    table = scale.scale(np.arange(2**_COLOUR_BITS))
    table = (255 - table if inverted else table).astype(np.uint8)
    if transparent is not None:
        table[transparent] = 0
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    for top in range(0, height, STRIP_ROWS):
        strip = np.asarray(image.crop((0, top, width, min(top + STRIP_ROWS, height))))
        scale.note(strip if transparent is None else strip[strip != transparent])
        grey[top : top + STRIP_ROWS] = table[strip]
    return Picture(grey=grey, stored=scale.stored)


def decode_wide_colours(png: bytes, value_range: ValueRange | None) -> Picture:
    """Decode a PNG with 16 bits per channel and several channels, of which Pillow keeps only 8 bits.

    Raises:
        ImageError: damaged or truncated.
    """
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ImageError("broken or truncated PNG")
    check_rows(png)
    hidden = read_transparent_colour(png)
    scale = _Scale(_COLOUR_BITS, value_range)
    grey = np.empty(pixels.shape[:2], np.uint8)
    for top in range(0, len(pixels), _COLOUR_STRIP_ROWS):
        strip = pixels[top : top + _COLOUR_STRIP_ROWS]
        colours = strip[..., :3]
        opacity = np.ones(strip.shape[:2]) if strip.shape[2] == 3 else strip[..., 3] / 65_535
        if hidden is not None:
            opacity[(colours == hidden[::-1]).all(axis=2)] = 0
        luma = (colours.astype(np.uint32) @ _LUMA + 32_768) >> 16
        scale.note(luma[opacity > 0])
        grey[top : top + _COLOUR_STRIP_ROWS] = np.rint(scale.scale(luma.astype(np.int64)) * opacity)
    sample = pixels[::_STRIDE, ::_STRIDE, :3].astype(np.int64)
    spread = float((sample.max(axis=2) - sample.min(axis=2)).mean()) * 255 / scale.white
    return Picture(grey=grey, colour_spread=min(spread, 255.0), stored=scale.stored)


class _Scale:
    """Scales values to 0 to 255, and remembers the lowest and the highest that were shown."""

    def __init__(self, bits: int, value_range: ValueRange | None) -> None:
        self.bits = bits
        self.black, self.white = black_and_white(bits, signed=False, value_range=value_range)
        self._ends: list[int] = []

    def note(self, shown: np.ndarray) -> None:
        """Remember the lowest and the highest of some values that are shown."""
        if shown.size:
            self._ends += [int(shown.min()), int(shown.max())]

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Scale integers to 0 to 255."""
        span = self.white - self.black
        return np.asarray((np.clip(values - self.black, 0, span) * 255 + span // 2) // span)

    @property
    def stored(self) -> StoredValues | None:
        """The values of all strips; None where nothing is shown."""
        if not self._ends:
            return None
        return StoredValues(lowest=min(self._ends), highest=max(self._ends), bits=self.bits)
