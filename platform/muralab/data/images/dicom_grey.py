"""What each stored value of a DICOM image looks like: rescale, window or lookup table, and polarity, as one table.

Lookup tables are applied here and not by pydicom 3.0.2, which computes positions in a VOI table in the type of its
entries, so that 12 bits wrap in 8-bit tables, and positions in a modality table in the type of the stored values, which
may be too narrow for the table's first value or its length.

Shape legend: V values that the stored bits can represent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from muralab.data.images.dicom_header import read_number, read_numbers, with_attribute
from muralab.data.images.dicom_pixels import StoredPixels
from muralab.data.images.value_range import MIN_BITS, ValueRange, black_and_white
from muralab.errors import ImageError

_RESCALE_GROUP, _WINDOW_GROUP = "PixelValueTransformationSequence", "FrameVOILUTSequence"
_MIN_WIDTH = {"LINEAR": 1.0}
_TINY = 1e-6
_WORD_VALUES = 65_536


@dataclass(frozen=True, kw_only=True)
class GreyTable:
    """The grey value of each stored value."""

    grey: np.ndarray
    """uint8 [V]; the position is a word's lowest bits."""
    by_file_type: bool
    """Whether the header does not say which values are black and white, so that a data set's range matters."""
    notes: tuple[str, ...]
    """What in the header was unusable and therefore ignored."""


@dataclass(frozen=True)
class _Scale:
    """Modality values, and which of them are black and white if nothing else says so."""

    values: np.ndarray
    low: float
    high: float
    by_file_type: bool
    notes: list[str] = field(default_factory=list)


def build_table(header: Any, pixels: StoredPixels, value_range: ValueRange | None) -> GreyTable:
    """Apply a header to every value that its pixels can have.

    Args:
        header: pydicom's data set.
        pixels: its pixels.
        value_range: of the data set; used where the header has neither window nor lookup table.

    Raises:
        ImageError: the header's values are not numbers, or its lookup tables contradict themselves.
    """
    words = np.arange(2**pixels.bits, dtype=np.uint32)
    scale = _rescale(header, pixels, pixels.to_values(words).astype(float), value_range)
    brightness = _look_up_voi(header, scale)
    if brightness is None:
        brightness = _window(header, scale)
    by_file_type = brightness is None and scale.by_file_type and pixels.bits > MIN_BITS
    if brightness is None:
        brightness = (scale.values - scale.low) / (scale.high - scale.low)
    brightness = np.clip(brightness, 0, 1)
    if _is_inverted(header):
        brightness = 1 - brightness
    grey = np.rint(brightness * 255).astype(np.uint8)
    return GreyTable(grey=grey, by_file_type=by_file_type, notes=tuple(scale.notes))


def _is_inverted(header: Any) -> bool:
    """Whether large values are dark; PresentationLUTShape overrules the photometric interpretation (PS3.3 C.11.6)."""
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return str(header.PhotometricInterpretation) == "MONOCHROME1"


def _rescale(header: Any, pixels: StoredPixels, values: np.ndarray, value_range: ValueRange | None) -> _Scale:
    """Modality values of stored values [V]; PS3.3 C.11.1."""
    if header.get("ModalityLUTSequence"):
        ends = float(values.min()), float(values.max())
        entries, highest = _look_up(header, "ModalityLUTSequence", values, ends)
        return _Scale(entries, 0.0, highest, by_file_type=False)
    low, high = black_and_white(pixels.bits, signed=pixels.signed, value_range=value_range)
    notes: list[str] = []
    slope, intercept = _slope_and_intercept(header, notes)
    darkest, brightest = sorted((low * slope + intercept, high * slope + intercept))
    return _Scale(values * slope + intercept, darkest, brightest, by_file_type=True, notes=notes)


def _slope_and_intercept(header: Any, notes: list[str]) -> tuple[float, float]:
    holder = with_attribute(header, "RescaleSlope", _RESCALE_GROUP)
    slope, intercept = (read_number(holder, name) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if slope and np.isfinite([slope * _WORD_VALUES, slope * _WORD_VALUES + intercept]).all():
        return slope, intercept
    notes.append("its rescale is ignored: the slope is 0, or not a finite number")
    return 1.0, 0.0


def _window(header: Any, scale: _Scale) -> np.ndarray | None:
    """Brightness [V] under the first usable window, unclipped; None without one; PS3.3 C.11.2.1.

    Raises:
        ImageError: a window is not a number, and no other window is usable.
    """
    holder = with_attribute(header, "WindowWidth", _WINDOW_GROUP)
    centres, widths = (read_numbers(holder, name) for name in ("WindowCenter", "WindowWidth"))
    function = str(holder.get("VOILUTFunction") or "LINEAR").strip().upper()
    for centre, width in zip(centres, widths):
        if centre is None or width is None:
            continue
        if np.isfinite([centre, width]).all() and width >= _MIN_WIDTH.get(function, _TINY):
            return _apply_window(scale.values, centre, width, function)
    if None in centres + widths:
        raise ImageError("DICOM whose window centre or width is not a number; correct or remove both")
    if centres and widths:
        scale.notes.append("its window is ignored: the width is too small, or a value is not a finite number")
    return None


def _apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60))))
    if function == "LINEAR_EXACT":
        return np.asarray((values - centre) / width + 0.5)
    return np.asarray((values - (centre - 0.5)) / max(width - 1, _TINY) + 0.5)


def _look_up_voi(header: Any, scale: _Scale) -> np.ndarray | None:
    """Brightness [V] under the first VOI table; None without one."""
    holder = with_attribute(header, "VOILUTSequence", _WINDOW_GROUP)
    if not holder.get("VOILUTSequence"):
        return None
    ends = float(scale.values.min()), float(scale.values.max())
    entries, highest = _look_up(holder, "VOILUTSequence", scale.values, ends)
    return entries / highest


def _look_up(header: Any, name: str, values: np.ndarray, ends: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Replace values by the entries of a sequence's first table; PS3.3 C.11.1 and C.11.2.

    Args:
        header: pydicom's data set.
        name: `ModalityLUTSequence` or `VOILUTSequence`.
        values: numbers [V]; those outside the table get its first or last entry.
        ends: the lowest and the highest of them.

    Returns:
        Entries [V], and the largest value of as many bits as the entries need: descriptors often promise 16 bits for
        entries of 12.

    Raises:
        ImageError: the table contradicts its descriptor.
    """
    item = header[name].value[0]
    n_entries, first, bits = (int(number) for number in item.LUTDescriptor)
    n_entries = n_entries % _WORD_VALUES or _WORD_VALUES
    little_endian = bool(header.original_encoding[1])
    table = _read_entries(item.LUTData, n_entries, bits, "<u2" if little_endian else ">u2")
    if table.shape != (n_entries,):
        raise ImageError("DICOM whose lookup table contradicts its descriptor")
    positions = np.clip(np.rint(values) - _first_value(first, n_entries, ends), 0, n_entries - 1).astype(np.int64)
    needed_bits = max(MIN_BITS, int(table.max()).bit_length())
    return table.astype(float)[positions], float(2**needed_bits - 1)


def _first_value(first: int, n_entries: int, ends: tuple[float, float]) -> int:
    """The value that a table starts at, which may be written without its sign, or with a wrong one.

    Of the two values that the 16 bits can mean, the one whose table covers more of the values that pixels can have.
    """

    def covered(start: int) -> float:
        return min(start + n_entries, ends[1] + 1) - max(start, ends[0])

    other = first - _WORD_VALUES if first >= _WORD_VALUES // 2 else first + _WORD_VALUES if first < 0 else first
    return other if covered(other) > max(covered(first), 0) else first


def _read_entries(data: Any, n_entries: int, bits: int, order: str) -> np.ndarray:
    """Entries of a table, stored as numbers or as bytes: words in the file's order, or two 8-bit entries per word."""
    is_bytes = isinstance(data, bytes)
    words = np.frombuffer(data, order) if is_bytes else np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
    if bits == MIN_BITS and 2 * len(words) in (n_entries, n_entries + 1):
        return np.asarray(words.astype("<u2").view(np.uint8)[:n_entries])
    return np.asarray(words[:n_entries] if is_bytes else words)
