"""Limits of DICOM files, enforced while pydicom parses them, because pydicom has none.

A 14 MiB file of empty items, or of a window's commas, would take over a gigabyte and half a minute.
"""

from __future__ import annotations

import io
from typing import Any

from muralab.errors import ImageError

MAX_READS = 50_000
"""Calls of `read` while parsing, two or three per element; radiographs have about 300 elements. pydicom keeps about
750 bytes for each element and for each item of a sequence, which may take only 8 bytes of the file."""

MAX_VALUE_BYTES = 4_096
"""Of each element used here; pydicom creates an object for each of its values or items, which may be one byte."""

MAX_TABLE_BYTES = 524_288
"""Of a sequence of lookup tables, the largest of which has 65,536 entries of two bytes, or of functional groups."""

MAX_FRAGMENTS = 10_000
"""Of a compressed image."""

TOO_MANY = "a DICOM with too many elements or values"
TOO_LARGE = "a DICOM with too large a lookup table, or too large functional groups"

# From the meta group: length, class and syntax; the character set, which pydicom splits at once; the pixel description
# with its spacings and padding; rescale, window, a table's descriptor and the presentation's shape.
_META = (0x0002_0000, 0x0002_0002, 0x0002_0010, 0x0008_0005)
_PIXELS = tuple(
    0x0028_0000 + number for number in (2, 4, 6, 8, 0x10, 0x11, 0x30, 0x34, 0x100, 0x101, 0x102, 0x103, 0x120, 0x121)
)
_SPACINGS = (0x0018_1164, 0x0018_2010)
_WINDOW = (*(0x0028_0000 + number for number in (0x1050, 0x1051, 0x1052, 0x1053, 0x1056, 0x3002)), 0x2050_0020)
_TABLES = (0x0028_3000, 0x0028_3006, 0x0028_3010, 0x5200_9229, 0x5200_9230)


def _encode(tags: tuple[int, ...], limit: int) -> dict[bytes, int]:
    """Tags as encoded in files of either byte order."""
    pairs = [(tag >> 16, tag & 0xFFFF) for tag in tags]
    return {b"".join(n.to_bytes(2, order) for n in pair): limit for pair in pairs for order in ("little", "big")}


_LIMITS = _encode(_META + _PIXELS + _SPACINGS + _WINDOW, MAX_VALUE_BYTES) | _encode(_TABLES, MAX_TABLE_BYTES)


class LimitedFile(io.BytesIO):
    """The file's bytes; `read` rejects excessive elements, at any depth of the sequences that pydicom parses eagerly.

    pydicom reads the start of each element in a piece of 8 bytes, and a value in one piece.
    """

    n_reads = 0
    _limit: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file.

        Raises:
            ImageError: too many reads, or too large a value.
        """
        self.n_reads += 1
        if self.n_reads > MAX_READS:
            raise ImageError(TOO_MANY)
        if self._limit is not None and size is not None and size > self._limit:
            raise ImageError(TOO_LARGE if self._limit == MAX_TABLE_BYTES else TOO_MANY)
        piece = super().read(size)
        if size == 8:
            self._limit = _LIMITS.get(piece[:4])
        return piece


def check_pixel_data(header: Any) -> None:
    """Reject pixel data of another type than bytes: pydicom would create an unlimited number of objects from it.

    Raises:
        ImageError: the element has another type.
    """
    if header.get_item("PixelData").VR not in (None, "OB", "OW", "UN"):  # None: implied by the syntax
        raise ImageError("DICOM whose pixel data are not bytes")
