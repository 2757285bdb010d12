"""Decode one PNG, JPEG, TIFF or BMP with Pillow, which reads the header before it allocates memory.

Shape legend: H height, W width, C colour channels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from muralab.data.images.jpeg import check_complete, check_jpeg, ends_evenly, find_scans
from muralab.data.images.kind import JPEG, PNG, TIFF
from muralab.data.images.picture import STRIP_ROWS, Picture, check_size, short_reason
from muralab.data.images.png import check_png, check_rows, may_hold_exif, read_png_header
from muralab.data.images.tiff import bits_of, check_tiff, is_white_zero
from muralab.data.images.value_range import ValueRange
from muralab.data.images.wide import decode_wide_colours, scale_wide
from muralab.errors import ImageError

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "I;16B")
_COLOUR_STRIDE = 8
_NO_SPREAD = np.zeros(0, np.int16)
_ORIENTATION_TAG = 0x0112
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda grey: np.rot90(grey, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda grey: np.rot90(grey, -1),
    7: lambda grey: np.rot90(grey, 2).T,
    8: np.rot90,
}


def decode_raster(data: bytes, kind: str, *, max_pixels: int, value_range: ValueRange | None = None) -> Picture:
    """Decode a file.

    Args:
        data: the file's bytes.
        kind: PNG, JPEG, TIFF or BMP.
        max_pixels: larger images are rejected from their header.
        value_range: of the data set, for values of more than 8 bits, see `value_range.black_and_white`.

    Raises:
        ImageError: an unsupported colour mode, several images, too small or large, damaged or truncated; the text is
            the reason.
    """
    if kind == JPEG:
        check_jpeg(data)
    elif kind == PNG:
        data = check_png(data)
    with _open(data, kind) as image:
        check_size(*image.size, max_pixels=max_pixels)
        _check_mode(image)
        picture = _decode(image, data, value_range)
        orientation = _orientation(image, data)
    _check_complete(data, kind, picture.grey)  # not before the memory of the first decoding is free
    turn = _TURNS.get(orientation)
    return picture if turn is None else replace(picture, grey=np.ascontiguousarray(turn(picture.grey)))


def _decode(image: Any, data: bytes, value_range: ValueRange | None) -> Picture:
    """Decode an opened file as it is stored, without its orientation."""
    bits = read_png_header(data).bits if image.format == PNG else 8
    if bits == 16 and image.mode.startswith("RGB"):
        return decode_wide_colours(data, value_range)
    try:
        image.load()
    except Exception as error:  # a decoder may raise anything on malformed bytes
        raise ImageError(f"broken or truncated {image.format} ({short_reason(error)})") from None
    _scale_transparency(image, bits)
    return _to_picture(image, value_range)


def _open(data: bytes, kind: str) -> Any:
    """Read a file's header."""
    try:
        return Image.open(io.BytesIO(data), formats=(kind,))
    except UnidentifiedImageError:
        raise ImageError(f"a {kind} of an unknown form, or broken") from None
    except Image.DecompressionBombError:
        raise ImageError("too large, a decompression bomb according to its header") from None
    except Exception as error:  # a decoder may raise anything on malformed bytes
        raise ImageError(f"its header cannot be read ({short_reason(error)})") from None


def _check_mode(image: Any) -> None:
    if image.format == PNG and getattr(image, "is_animated", False):
        raise ImageError("an animated PNG; send one still image per row")
    if image.mode not in _MODES:
        raise ImageError(f"{image.mode} colours are not read; save the image as grey or RGB")
    if image.format == TIFF:
        check_tiff(image)


def _check_complete(data: bytes, kind: str, grey: np.ndarray) -> None:
    """Reject files whose pixels end early without an error in the decoder, which fills what is missing evenly.

    Only those are checked of which it may be so: that takes as long as decoding them.
    """
    if kind == PNG and (not grey[-1].any() or read_png_header(data).interlaced):
        check_rows(data)
    if kind == JPEG and len(find_scans(data)) > 1:
        check_complete(data, _luma(data), _luma)
    elif kind == JPEG and ends_evenly(grey):
        check_complete(data, _coarse(data), _coarse)


def _coarse(jpeg: bytes) -> np.ndarray:
    """A JPEG at an eighth of its size, grey: fast, and enough to see what lossy blocks hold."""
    return _luma(jpeg, factor=8)


def _luma(jpeg: bytes, *, factor: int = 1) -> np.ndarray:
    """A JPEG as grey, decoded at its size or at a fraction of it."""
    with Image.open(io.BytesIO(jpeg), formats=(JPEG,)) as image:
        image.draft("L", (max(1, image.width // factor), max(1, image.height // factor)))
        return np.asarray(image.convert("L"))


def _to_picture(image: Any, value_range: ValueRange | None) -> Picture:
    """Convert a loaded Pillow image to grey, strip by strip: Pillow stores a colour pixel in 4 bytes."""
    if image.mode.startswith("I"):
        bits, inverted = (bits_of(image), is_white_zero(image)) if image.format == TIFF else (16, False)
        hidden = image.info.get("transparency")
        return scale_wide(image, bits, value_range, transparent=hidden, inverted=inverted)
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    spreads: list[np.ndarray] = []
    for top in range(0, height, STRIP_ROWS):
        is_whole = height <= STRIP_ROWS  # a crop is a copy
        strip = image if is_whole else image.crop((0, top, width, min(top + STRIP_ROWS, height)))
        grey[top : top + STRIP_ROWS], spread = _to_grey(strip)
        spreads.append(spread)
    n_sampled = sum(spread.size for spread in spreads)
    return Picture(grey=grey, colour_spread=sum(int(spread.sum()) for spread in spreads) / max(n_sampled, 1))


def _to_grey(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Grey values uint8 [H, W], and the channel spread of sampled pixels, int16 (empty for grey images)."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode in ("1", "L"):
        grey = image if image.mode == "L" else image.convert("L")  # convert copies even an image of the same mode
        return np.asarray(grey), _NO_SPREAD
    image = image.convert("RGB")
    return np.asarray(image.convert("L")), _channel_spread(np.asarray(image))


def _scale_transparency(image: Any, bits: int) -> None:
    """Scale the transparent value of a grey PNG of 2 or 4 bits as Pillow scales its pixels."""
    hidden = image.info.get("transparency")
    if image.mode == "L" and bits < 8 and isinstance(hidden, int):
        image.info["transparency"] = (hidden & (2**bits - 1)) * 255 // (2**bits - 1)


def _orientation(image: Any, data: bytes) -> int:
    """The EXIF orientation; 1 without one, where it is broken, and for TIFF files, which Pillow turns itself."""
    if image.format == TIFF or (image.format == PNG and not may_hold_exif(data)):
        return 1  # Pillow would decode a PNG to look behind its pixels
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata must not lose an image that decodes
        return 1


def _channel_spread(rgb: np.ndarray) -> np.ndarray:
    """Channel spread of every eighth pixel of uint8 [H, W, 3], int16."""
    sample = rgb[::_COLOUR_STRIDE, ::_COLOUR_STRIDE].astype(np.int16)
    return np.asarray(sample.max(axis=2) - sample.min(axis=2))
