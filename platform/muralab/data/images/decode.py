"""The one preprocessing: bytes of a PNG, JPEG or DICOM -> grey uint8 square, in training and in the served model alike.

Pillow reads a picture's header before any memory is taken and then decodes, OpenCV resizes, pydicom reads DICOM.
Shape legend: H height, W width, S side of the square.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from muralab.data.images.jpeg_limits import check_jpeg
from muralab.data.images.png_limits import check_png
from muralab.errors import ImageError

MAX_PIXELS = 50_000_000
"""Pictures with more pixels than this are refused from their header; the largest radiographs have some 20 million."""

MIN_SIDE = 16
"""Pictures with a side of fewer pixels than this hold nothing that can be judged."""

STRIP_ROWS = 512
"""Rows that are turned to grey at once, so that a large picture is never held twice in its full width of bits."""

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


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture."""

    grey: np.ndarray
    """uint8 [H, W]."""

    colour_spread: float = 0.0
    """Mean difference between a pixel's largest and smallest colour channel, 0 to 255; 0 for grey in any wrapping."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG, JPEG or DICOM file.

    16-bit pictures are scaled by their full range (DICOM: by their window, where one is stored), colour becomes luma,
    transparency shows black (a colour that stands for it in 16-bit RGB does not), and a JPEG's EXIF orientation is
    applied.

    Args:
        data: the file's bytes.
        max_pixels: larger pictures are refused from their header, before memory is taken.

    Returns:
        Grey values, uint8 [H, W].

    Raises:
        ImageError: the bytes are no picture that can be judged; the text is the reason.
    """
    return decode_picture(data, max_pixels=max_pixels).grey


def decode_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """As `decode`, and says how colourful the picture was.

    Raises:
        ImageError: the bytes are no picture that can be judged; the text is the reason.
    """
    if not data:
        raise ImageError("zero bytes")
    if data[128:132] == b"DICM":
        from muralab.data.images.dicom import decode_dicom

        return Picture(grey=decode_dicom(data, max_pixels=max_pixels))
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        check_png(data)
    with _open(data) as image:
        check_size(*image.size, max_pixels=max_pixels)
        _check_kind(image)
        try:
            image.load()
        except Exception as error:  # a decoder that is fed strange bytes may raise anything
            raise ImageError(f"broken or truncated {image.format} ({_reason(error)})") from None
        return _to_picture(image)


def check_size(width: int, height: int, *, max_pixels: int) -> None:
    """Refuse a picture by the size that its header claims.

    Raises:
        ImageError: a side is under `MIN_SIDE` px, or there are more than `max_pixels` pixels.
    """
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} px is too small, at least {MIN_SIDE} px a side are needed")
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} px is too large, at most {max_pixels / 1e6:g} million pixels are read")


def to_square(grey: np.ndarray, size: int) -> np.ndarray:
    """Scale the longer side to `size`, keeping proportions, and centre the picture on black.

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


def _open(data: bytes) -> Any:
    """Read a PNG's or JPEG's header."""
    if data.startswith((b"GIF87a", b"GIF89a")):
        raise ImageError("a GIF; only PNG, JPEG and DICOM are read")
    try:
        return Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG or DICOM file") from None
    except Image.DecompressionBombError:
        raise ImageError("too large, a decompression bomb by its header") from None
    except Exception as error:  # a decoder that is fed strange bytes may raise anything
        raise ImageError(f"its header cannot be read ({_reason(error)})") from None


def _check_kind(image: Any) -> None:
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise ImageError("an animated PNG; send one still picture a row")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "I;16B"):
        raise ImageError(f"{image.mode} colours are not read; save the picture as grey or RGB")


def _to_picture(image: Any) -> Picture:
    """A loaded Pillow image -> grey values, strip by strip: Pillow holds colours in 4 bytes a pixel."""
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    spreads: list[np.ndarray] = []
    for top in range(0, height, STRIP_ROWS):
        strip = image.crop((0, top, width, min(top + STRIP_ROWS, height)))
        grey[top : top + STRIP_ROWS], spread = _to_grey(strip)
        spreads.append(spread)
    if image.format != "PNG":
        grey = _upright(image, grey)
    n_seen = sum(spread.size for spread in spreads)
    return Picture(grey=grey, colour_spread=sum(int(spread.sum()) for spread in spreads) / max(n_seen, 1))


def _to_grey(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Grey values, uint8 [H, W], and the channel spread of some pixels, int16; none for what has no colour."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + 128) // 257).astype(np.uint8)
        grey[wide == image.info.get("transparency", -1)] = 0
        return grey, _NO_SPREAD
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), _NO_SPREAD
    image = image.convert("RGB")
    return np.asarray(image.convert("L")), _channel_spread(np.asarray(image))


def _upright(image: Any, grey: np.ndarray) -> np.ndarray:
    """Turn grey values, uint8 [H, W], as the EXIF orientation says; a broken EXIF block says nothing."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # metadata is no reason to lose a picture that decodes
        return grey
    return grey if turn is None else np.ascontiguousarray(turn(grey))


def _channel_spread(rgb: np.ndarray) -> np.ndarray:
    """Channel spread of every eighth pixel of uint8 [H, W, 3], int16."""
    sample = rgb[::_COLOUR_STRIDE, ::_COLOUR_STRIDE].astype(np.int16)
    return np.asarray(sample.max(axis=2) - sample.min(axis=2))


def _reason(error: Exception) -> str:
    """An error's first line, cut short."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
