"""A DICOM's lookup tables, applied without pydicom's slips.

pydicom keeps places in a VOI table in the type of its entries, so that 12 bits wrap in tables of 8, and places in a
modality table in the type of the stored values, which may be too narrow for the table's first value or its length.

Shape legend: H height, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from muralab.errors import ImageError


def look_up(header: Any, name: str, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Replace values by the entries of a sequence's first table; DICOM PS3.3 C.11.1 and C.11.2.

    Args:
        header: pydicom's dataset.
        name: `ModalityLUTSequence` or `VOILUTSequence`.
        values: numbers [H, W]; those outside the table take its first or last entry.

    Returns:
        Entries, float32 [H, W], and the largest that the table's bits could hold.

    Raises:
        ImageError: the table is not as its descriptor says.
    """
    item = header[name].value[0]
    n_entries, first, bits = (int(number) for number in item.LUTDescriptor)
    n_entries = n_entries or 65_536
    table = _read_entries(item.LUTData, n_entries, bits, "<u2" if header.original_encoding[1] else ">u2")
    if not 8 <= bits <= 16 or table.shape != (n_entries,):
        raise ImageError("DICOM whose lookup table is not as its descriptor says")
    # Clipped while they are floats: a large rescale leaves values beyond any integer.
    places = np.clip(np.rint(values.astype(np.float32)) - first, 0, n_entries - 1).astype(np.int64)
    return np.asarray(table.astype(np.float32)[places]), float(2**bits - 1)


def _read_entries(data: Any, n_entries: int, bits: int, order: str) -> np.ndarray:
    """Entries of a table: numbers, or bytes that are words in the file's order, or of 8 bits two in a word."""
    words = np.frombuffer(data, order) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data))
    if bits == 8 and 2 * len(words) in (n_entries, n_entries + 1):
        return words.astype("<u2").view(np.uint8)[:n_entries]
    return words[:n_entries] if isinstance(data, bytes) else words
