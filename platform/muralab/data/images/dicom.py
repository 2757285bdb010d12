"""Decode one still grey DICOM image to uint8, with its rescale, window or lookup table, polarity and padding applied.

Shape legend: H height (Rows), W width (Columns).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from muralab.data.images.dicom_file import read_data_set
from muralab.data.images.dicom_grey import build_table
from muralab.data.images.dicom_header import read_aspect, read_number
from muralab.data.images.dicom_limits import check_pixel_data
from muralab.data.images.dicom_pixels import StoredPixels, find_padding, read_pixels
from muralab.data.images.picture import STRIP_ROWS, Picture, check_size, short_reason
from muralab.data.images.value_range import StoredValues, ValueRange
from muralab.errors import ImageError


def decode_dicom(data: bytes, *, max_pixels: int, value_range: ValueRange | None = None) -> Picture:
    """Decode a DICOM file.

    Pixels are rescaled and windowed as the file specifies. Without a window the range of the data set is used, or else
    the full range of the stored bits, so that an 8-bit DICOM and a PNG of the same pixels are equal. Values are
    inverted where PresentationLUTShape, or else MONOCHROME1, says so; padding is black; pixels that are not square are
    stretched.

    Args:
        data: the file's bytes, with or without DICOM's preamble.
        max_pixels: larger images are rejected from their header.
        value_range: of the data set, see `value_range.black_and_white`.

    Raises:
        ImageError: encrypted, in an unsupported compression, several frames, colour, too small or large, damaged,
            truncated, with numbers that are none, or not a DICOM; the text is the reason.
    """
    try:
        header = read_data_set(data, max_pixels=max_pixels)
        aspect = _check_header(header, max_pixels)
        return _decode(header, aspect, value_range)
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything on malformed bytes
        raise ImageError(f"broken DICOM ({short_reason(error)})") from None


def _check_header(header: Any, max_pixels: int) -> float:
    """Reject everything but one still grey image, before its pixels are unpacked; the aspect ratio of its pixels."""
    if "PixelData" not in header:
        sealed = "EncryptedAttributesSequence" in header
        raise ImageError("encrypted DICOM" if sealed else "DICOM without pixel data")
    if "EncryptedAttributesSequence" in header and "PhotometricInterpretation" not in header:
        raise ImageError("encrypted DICOM")
    missing = [name for name in ("Rows", "Columns", "BitsAllocated", "BitsStored") if not header.get(name)]
    if missing:
        raise ImageError(f"DICOM without {', '.join(missing)}")
    if (n_frames := read_number(header, "NumberOfFrames") or 1) > 1:
        raise ImageError(f"multi-frame DICOM ({n_frames:.0f} frames); send one still image per row")
    kind = str(header.get("PhotometricInterpretation", "none"))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"DICOM with {kind[:40]} colours; only MONOCHROME1 and MONOCHROME2 are read")
    _check_bits(header)
    aspect = read_aspect(header)
    check_size(*_stretched_size(int(header.Columns), int(header.Rows), aspect), max_pixels=max_pixels)
    check_size(int(header.Columns), int(header.Rows), max_pixels=max_pixels)
    check_pixel_data(header)
    return aspect


def _check_bits(header: Any) -> None:
    if header.BitsAllocated not in (8, 16) or not 8 <= header.BitsStored <= header.BitsAllocated:
        raise ImageError(f"DICOM with {header.BitsStored} of {header.BitsAllocated} bits; only 8 to 16 bits are read")
    if header.get("HighBit") not in (None, header.BitsStored - 1):  # allowed by old standards; values would be shifted
        raise ImageError(f"DICOM whose {header.BitsStored} bits end at {header.HighBit}; only the lowest bits are read")


def _decode(header: Any, aspect: float, value_range: ValueRange | None) -> Picture:
    pixels = read_pixels(header)
    padding = find_padding(header, pixels)
    table = build_table(header, pixels, value_range)
    mask = len(table.grey) - 1
    grey = np.empty(pixels.words.shape, np.uint8)
    for top in range(0, len(grey), STRIP_ROWS):
        strip = slice(top, top + STRIP_ROWS)
        grey[strip] = table.grey[pixels.words[strip] & mask]
    if padding is not None:
        grey[padding] = 0
    stored = _measure(pixels, padding) if table.by_file_type else None
    return Picture(
        grey=_stretch(grey, aspect),
        stored=stored,
        notes=table.notes,
        body_part=_read_text(header, "BodyPartExamined"),
        patient=_read_text(header, "PatientID").strip(),
        study=_read_text(header, "StudyInstanceUID").strip(),
        burned_in=_read_text(header, "BurnedInAnnotation").strip().upper() == "YES",
    )


def _read_text(header: Any, name: str) -> str:
    try:
        return str(header.get(name) or "")
    except Exception:  # pydicom refuses some values while it converts them
        return ""


def _measure(pixels: StoredPixels, padding: np.ndarray | None) -> StoredValues | None:
    """The lowest and the highest value outside the padding."""
    ends: list[int] = []
    for top in range(0, len(pixels.words), STRIP_ROWS):
        strip = slice(top, top + STRIP_ROWS)
        values = pixels.to_values(pixels.words[strip] if padding is None else pixels.words[strip][~padding[strip]])
        if values.size:
            ends += [int(values.min()), int(values.max())]
    if not ends:
        return None
    return StoredValues(lowest=min(ends), highest=max(ends), bits=pixels.bits, signed=pixels.signed)


def _stretched_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Width and height with square pixels; no side becomes shorter."""
    return (width, round(height * aspect)) if aspect >= 1 else (round(width / aspect), height)


def _stretch(grey: np.ndarray, aspect: float) -> np.ndarray:
    if aspect == 1:
        return grey
    size = _stretched_size(grey.shape[1], grey.shape[0], aspect)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR))
