"""TIFF files that Pillow would misread, or read in part."""

from __future__ import annotations

from typing import Any

from muralab.errors import ImageError

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO = 0
_UNSIGNED = 1


def check_tiff(image: Any) -> None:
    """Reject several pages, signed or floating-point values, colours of 16 bits, and missing strips.

    Args:
        image: Pillow's, not loaded yet.

    Raises:
        ImageError: one of these.
    """
    bits, formats = image.tag_v2.get(BITS_PER_SAMPLE, (1,)), image.tag_v2.get(SAMPLE_FORMAT, (_UNSIGNED,))
    if max(formats) != _UNSIGNED or max(bits) > 16:
        raise ImageError("a TIFF of signed, floating-point or 32-bit values; save it with 8 or 16 bits, unsigned")
    if max(bits) == 16 and len(bits) > 1:
        raise ImageError("a TIFF with 16 bits per colour channel; save it as 16-bit grey")
    if image.tag_v2.next:  # counting the pages would read them all
        raise ImageError("a TIFF with several pages; send one still image per row")
    covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in image.tile)
    if covered < image.width * image.height:
        raise ImageError("broken or truncated TIFF (strips are missing)")


def is_white_zero(image: Any) -> bool:
    """Whether 0 is white; Pillow inverts such files of 8 bits, but not those of 16."""
    return bool(image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO)


def bits_of(image: Any) -> int:
    """Bits of each value."""
    return int(image.tag_v2.get(BITS_PER_SAMPLE, (1,))[0])
