"""Stored values of a DICOM image: raw, or decoded from the one compressed frame, within limits.

Shape legend: H height (Rows), W width (Columns).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from muralab.data.images.dicom_file import JPEG_2000, JPEG_LS, RAW, RLE
from muralab.data.images.dicom_header import is_given
from muralab.data.images.dicom_limits import MAX_FRAGMENTS
from muralab.data.images.jpeg import END, check_complete, check_jpeg, ends_evenly, read_frame_header
from muralab.data.images.picture import STRIP_ROWS
from muralab.errors import ImageError

_OTHER_SIZE = "DICOM whose compressed image does not have the size in its header"
_COLOURS = "DICOM whose compressed image has colours, although its header says grey"
_WORD = 0xFFFF


@dataclass(frozen=True, kw_only=True)
class StoredPixels:
    """The pixels of one image as they are stored."""

    words: np.ndarray
    """uint8 or uint16 [H, W]. The lowest `bits` are the value; those above them do not belong to it."""
    bits: int
    """Of each value."""
    signed: bool
    """Whether values are in two's complement."""

    def to_values(self, words: np.ndarray) -> np.ndarray:
        """The values of words, int32 of the same shape."""
        values = words.astype(np.int32) & (2**self.bits - 1)
        return np.asarray(values - ((values >> (self.bits - 1)) << self.bits) if self.signed else values)


def read_pixels(header: Any) -> StoredPixels:
    """Read the pixels of a checked data set.

    Raises:
        ImageError: the compressed image contradicts the header, or is truncated.
    """
    syntax, bits = str(header.file_meta.TransferSyntaxUID), int(header.BitsStored)
    if syntax in RAW:
        # Neither copied nor masked: bits above the value may mark padding.
        header.pixel_array_options(view_only=True, correct_unused_bits=False)
        words = header.pixel_array
    else:
        words, precision = _decode_frame(_frame(header), syntax, header)
        bits = min(bits, precision)
    if words.shape != (header.Rows, header.Columns) or words.dtype.itemsize > 2:
        raise ImageError("DICOM whose pixels do not fill its rows and columns")
    words = words.view(words.dtype.str.replace("i", "u"))  # keeps the byte order
    return StoredPixels(words=words, bits=bits, signed=bool(header.get("PixelRepresentation")))


def find_padding(header: Any, pixels: StoredPixels) -> np.ndarray | None:
    """Where an image is padded: pixels of the padding value or range in one piece with the image's border.

    Pixels of that value inside the picture, such as saturated bone, are not padding.

    Returns:
        bool [H, W]; None where there is no padding.
    """
    if not is_given(header, "PixelPaddingValue"):
        return None
    limits = [header[name].value for name in ("PixelPaddingValue", "PixelPaddingRangeLimit") if is_given(header, name)]
    if not all(isinstance(limit, int) for limit in limits):
        return None
    padded = _find_values(pixels, limits)
    if not padded.any():
        return None
    n_pieces, pieces = cv2.connectedComponents(padded, connectivity=4)
    touches = np.zeros(n_pieces, bool)
    for edge in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        touches[edge] = True
    touches[0] = False  # what is not padded
    found = np.empty(padded.shape, bool)
    for top in range(0, len(pieces), STRIP_ROWS):
        found[top : top + STRIP_ROWS] = touches[pieces[top : top + STRIP_ROWS]]
    return found if found.any() else None


def _find_values(pixels: StoredPixels, limits: list[int]) -> np.ndarray:
    """Where the pixels have a value, or one between two, uint8 [H, W]."""
    words = pixels.words
    if len(limits) == 1 and not _fits(limits[0], pixels):  # padding marked by bits above the value
        return np.asarray(words == limits[0] % 2 ** (8 * words.dtype.itemsize), np.uint8)
    ends = [int(pixels.to_values(np.asarray(limit & _WORD))) for limit in limits]
    found = np.empty(words.shape, np.uint8)
    for top in range(0, len(words), STRIP_ROWS):
        values = pixels.to_values(words[top : top + STRIP_ROWS])
        found[top : top + STRIP_ROWS] = (values >= min(ends)) & (values <= max(ends))
    return found


def _fits(value: int, pixels: StoredPixels) -> bool:
    """Whether the pixels can have a value, which is written in 16 bits."""
    word = value & _WORD
    if pixels.signed and word >> 15:
        return word >> (pixels.bits - 1) == _WORD >> (pixels.bits - 1)  # the sign in all bits above the value
    return word >> pixels.bits == 0


def _frame(header: Any) -> bytes:
    """The only frame of a compressed image."""
    from pydicom.encaps import get_frame

    if header.PixelData.count(b"\xfe\xff\x00\xe0") > MAX_FRAGMENTS:
        raise ImageError("a DICOM whose image has too many fragments")
    if "ExtendedOffsetTable" in header:  # would let pydicom return another frame than the first
        del header.ExtendedOffsetTable
    return bytes(get_frame(header.PixelData, 0, number_of_frames=1))


def _decode_frame(frame: bytes, syntax: str, header: Any) -> tuple[np.ndarray, int]:
    """Words [H, W] and the bits of each value; the frame's own header is checked before memory is allocated."""
    if syntax == RLE:
        return _decode_rle(frame, header), int(header.BitsAllocated)
    return _decode_jpeg_2000(frame, header) if syntax in JPEG_2000 else _decode_jpeg(frame, syntax, header)


def _decode_jpeg(frame: bytes, syntax: str, header: Any) -> tuple[np.ndarray, int]:
    """Words [H, W] and bits of a JPEG (baseline, extended or lossless) or JPEG-LS image."""
    import imagecodecs

    stream = read_frame_header(frame)
    if (stream.width, stream.height) != (header.Columns, header.Rows):
        raise ImageError(_OTHER_SIZE)
    if stream.n_components != 1:
        raise ImageError(_COLOURS)
    if syntax in JPEG_LS:
        # Without an end marker, CharLS 2 takes 20 seconds to find that data are missing.
        return np.asarray(imagecodecs.jpegls_decode(frame + END)), stream.precision
    check_jpeg(frame)
    words = np.asarray(imagecodecs.jpeg8_decode(frame))
    if stream.lossless or ends_evenly(words):
        check_complete(frame, words, imagecodecs.jpeg8_decode)
    return words, stream.precision


def _decode_jpeg_2000(frame: bytes, header: Any) -> tuple[np.ndarray, int]:
    """Words [H, W] and bits of a JPEG 2000 image, sign-extended where its own header says that it is signed."""
    import imagecodecs
    from PIL import Image
    from pydicom.pixels.utils import get_j2k_parameters

    with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as image:
        if image.size != (header.Columns, header.Rows):
            raise ImageError(_OTHER_SIZE)
        if image.mode != "L" and not image.mode.startswith("I"):
            raise ImageError(_COLOURS)
    words = np.asarray(imagecodecs.jpeg2k_decode(frame))
    return words, int(get_j2k_parameters(frame).get("precision", header.BitsStored))


def _decode_rle(frame: bytes, header: Any) -> np.ndarray:
    """Words [H, W] of run-length encoded bytes; the decoder trusts the positions in the frame's header."""
    import imagecodecs

    n_segments, *starts = np.frombuffer(frame[:64].ljust(64, b"\0"), "<u4").tolist()
    ends = [*starts[1:n_segments], len(frame)]
    in_order = starts[0] == 64 and all(start < end <= len(frame) for start, end in zip(starts, ends))
    if n_segments != header.BitsAllocated // 8 or not in_order:
        raise ImageError("broken or truncated DICOM (the positions of its run lengths)")
    n_bytes = int(header.Rows) * int(header.Columns) * n_segments
    decoded = imagecodecs.dicomrle_decode(frame, f"<u{n_segments}", out=n_bytes)
    if len(decoded) != n_bytes:
        raise ImageError("broken or truncated DICOM (its run lengths end before its pixels)")
    return np.frombuffer(decoded, f"<u{n_segments}").reshape(header.Rows, header.Columns)
