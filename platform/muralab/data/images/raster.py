"""Decode one PNG or JPEG with Pillow, which reads the header before it allocates memory.

Shape legend: H height, W width.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from muralab.data.images.limits import check_jpeg, check_png
from muralab.data.images.picture import STRIP_ROWS, Picture, check_size, short_reason
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


def decode_raster(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a PNG or JPEG file.

    Args:
        data: the file's bytes.
        max_pixels: larger images are rejected from their header.

    Raises:
        ImageError: another format, an unsupported colour mode, animated, too small or large, or damaged; the text is
            the reason.
    """
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        check_png(data)
    with _open(data) as image:
        check_size(*image.size, max_pixels=max_pixels)
        _check_kind(image)
        try:
            image.load()
        except Exception as error:  # a decoder may raise anything on malformed bytes
            raise ImageError(f"broken or truncated {image.format} ({short_reason(error)})") from None
        return _to_picture(image)


def _open(data: bytes) -> Any:
    """Read a PNG's or JPEG's header."""
    if data.startswith((b"GIF87a", b"GIF89a")):
        raise ImageError("a GIF; only PNG, JPEG and DICOM are read")
    try:
        return Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG or DICOM file") from None
    except Image.DecompressionBombError:
        raise ImageError("too large, a decompression bomb according to its header") from None
    except Exception as error:  # a decoder may raise anything on malformed bytes
        raise ImageError(f"its header cannot be read ({short_reason(error)})") from None


def _check_kind(image: Any) -> None:
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise ImageError("an animated PNG; send one still image per row")
    if image.mode not in _MODES:
        raise ImageError(f"{image.mode} colours are not read; save the image as grey or RGB")


def _to_picture(image: Any) -> Picture:
    """Convert a loaded Pillow image to grey, strip by strip: Pillow stores a colour pixel in 4 bytes."""
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    spreads: list[np.ndarray] = []
    for top in range(0, height, STRIP_ROWS):
        strip = image.crop((0, top, width, min(top + STRIP_ROWS, height)))
        grey[top : top + STRIP_ROWS], spread = _to_grey(strip)
        spreads.append(spread)
    if image.format != "PNG":
        grey = _upright(image, grey)
    n_sampled = sum(spread.size for spread in spreads)
    return Picture(grey=grey, colour_spread=sum(int(spread.sum()) for spread in spreads) / max(n_sampled, 1))


def _to_grey(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Grey values uint8 [H, W], and the channel spread of sampled pixels, int16 (empty for grey images)."""
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
    """Apply the EXIF orientation to grey values, uint8 [H, W]; a broken EXIF block is ignored."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata must not lose an image that decodes
        return grey
    return grey if turn is None else np.ascontiguousarray(turn(grey))


def _channel_spread(rgb: np.ndarray) -> np.ndarray:
    """Channel spread of every eighth pixel of uint8 [H, W, 3], int16."""
    sample = rgb[::_COLOUR_STRIDE, ::_COLOUR_STRIDE].astype(np.int16)
    return np.asarray(sample.max(axis=2) - sample.min(axis=2))
