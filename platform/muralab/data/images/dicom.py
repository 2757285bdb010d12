"""Decode one still grey DICOM image to uint8, with its rescale, window or lookup table, and polarity applied.

Lookup tables are applied here and not by pydicom 3.0.2, which computes positions in a VOI table in the type of its
entries, so that 12 bits wrap in 8-bit tables, and positions in a modality table in the type of the stored values, which
may be too narrow for the table's first value or its length.

Shape legend: H height (Rows), W width (Columns).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from muralab.data.images.dicom_limits import MAX_FRAGMENTS, MAX_READS, TOO_MANY, LimitedFile, check_pixel_data
from muralab.data.images.limits import check_jpeg
from muralab.data.images.picture import STRIP_ROWS, check_size, short_reason
from muralab.errors import ImageError

# Raw pixels, and the two compressions whose header Pillow can check before memory is allocated. Deflated files are
# rejected: pydicom inflates the whole file, however large, before anything can be checked.
_RAW = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_PILLOW = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))


def decode_dicom(data: bytes, *, max_pixels: int) -> np.ndarray:
    """Decode a DICOM file.

    Pixels are rescaled and windowed as the file specifies; without a window the full range of the stored bits is used,
    so that an 8-bit DICOM and a PNG of the same pixels are equal. MONOCHROME1 is inverted.

    Args:
        data: the file's bytes, with DICOM's preamble.
        max_pixels: larger images are rejected from their header.

    Returns:
        Grey values, uint8 [H, W].

    Raises:
        ImageError: encrypted, in an unsupported compression, several frames, colour, too small or large, damaged, or
            not a DICOM; the text is the reason.
    """
    file = LimitedFile(data)
    try:
        _check_syntax(file)
        header = _read(file)
        _check_header(header, max_pixels)
        return _to_grey(header)
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything on malformed bytes
        if file.n_reads > MAX_READS:  # pydicom replaces some read errors by its own
            raise ImageError(TOO_MANY) from None
        raise ImageError(f"broken DICOM ({short_reason(error)})") from None


def _read(file: LimitedFile) -> Any:
    import pydicom

    file.seek(0)
    return pydicom.dcmread(file)


def _check_syntax(file: LimitedFile) -> None:
    """Reject an unsupported encoding from the file's meta group alone."""
    from pydicom import config
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    # pydicom's warnings about invalid values would print parts of a patient's file into the log.
    config.settings.reading_validation_mode = config.IGNORE

    file.seek(132)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if not syntax:
        raise ImageError("DICOM without a transfer syntax, so damaged or not a DICOM")
    if syntax not in _RAW + _PILLOW:
        raise ImageError(f"DICOM stored as {UID(syntax).name[:80]}, which is not supported; export it uncompressed")


def _check_header(header: Any, max_pixels: int) -> None:
    """Reject everything but one still grey image, before its pixels are unpacked."""
    if "PixelData" not in header:
        sealed = "EncryptedAttributesSequence" in header
        raise ImageError("encrypted DICOM" if sealed else "DICOM without pixel data")
    if "EncryptedAttributesSequence" in header and "PhotometricInterpretation" not in header:
        raise ImageError("encrypted DICOM")
    missing = [name for name in ("Rows", "Columns", "BitsAllocated", "BitsStored") if not header.get(name)]
    if missing:
        raise ImageError(f"DICOM without {', '.join(missing)}")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise ImageError(f"multi-frame DICOM ({header.NumberOfFrames} frames); send one still image per row")
    kind = str(header.get("PhotometricInterpretation", "none"))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"DICOM with {kind[:40]} colours; only MONOCHROME1 and MONOCHROME2 are read")
    _check_bits(header)
    check_size(int(header.Columns), int(header.Rows), max_pixels=max_pixels)
    check_pixel_data(header)
    if str(header.file_meta.TransferSyntaxUID) in _PILLOW:
        _check_frame(header)


def _check_bits(header: Any) -> None:
    if header.BitsAllocated not in (8, 16) or not 8 <= header.BitsStored <= header.BitsAllocated:
        raise ImageError(f"DICOM with {header.BitsStored} of {header.BitsAllocated} bits; only 8 to 16 bits are read")
    if header.get("HighBit") not in (None, header.BitsStored - 1):  # allowed by old standards; values would be shifted
        raise ImageError(f"DICOM whose {header.BitsStored} bits end at {header.HighBit}; only the lowest bits are read")


def _check_frame(header: Any) -> None:
    """Check a compressed frame's own header, which may claim another size than the DICOM's."""
    from PIL import Image
    from pydicom.encaps import get_frame

    if header.PixelData.count(b"\xfe\xff\x00\xe0") > MAX_FRAGMENTS:
        raise ImageError("a DICOM whose image has too many fragments")
    if "ExtendedOffsetTable" in header:  # would let pydicom decode another frame than the one that is checked here
        del header.ExtendedOffsetTable
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    if frame.startswith(b"\xff\xd8"):
        check_jpeg(frame)
    with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
        if image.size != (header.Columns, header.Rows):
            raise ImageError("DICOM whose compressed image does not have the size in its header")
        if image.mode != "L" and not image.mode.startswith("I"):  # pydicom would allocate a gigabyte before it refuses
            raise ImageError("DICOM whose compressed image has colours, although its header says grey")


def _to_grey(header: Any) -> np.ndarray:
    header.pixel_array_options(view_only=True)  # do not copy raw pixels
    stored = header.pixel_array
    if stored.shape != (header.Rows, header.Columns):
        raise ImageError("DICOM whose pixels do not fill its rows and columns")
    grey = np.empty(stored.shape, np.uint8)
    for top in range(0, len(stored), STRIP_ROWS):
        brightness = _to_brightness(header, stored[top : top + STRIP_ROWS])
        if not np.isfinite(brightness).all():
            raise ImageError("DICOM whose rescale or window does not give finite values")
        grey[top : top + STRIP_ROWS] = np.rint(np.clip(brightness, 0, 1) * 255)
    return grey


def _to_brightness(header: Any, stored: np.ndarray) -> np.ndarray:
    """Brightness of some rows' stored values: 0 is black, 1 is white; values outside are clipped later."""
    values, low, high = _rescale(header, stored)
    if header.get("VOILUTSequence"):
        entries, highest = _look_up(header, "VOILUTSequence", values)
        brightness = entries / highest
    elif _is_given(header, "WindowCenter") and _is_given(header, "WindowWidth"):
        brightness = _window(header, values)
    else:
        brightness = (values - low) / (high - low)
    return np.asarray(1 - brightness if header.PhotometricInterpretation == "MONOCHROME1" else brightness)


def _rescale(header: Any, stored: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Modality values float32 [H, W], and the lowest and highest value that the stored bits can represent."""
    if header.get("ModalityLUTSequence"):
        values, highest = _look_up(header, "ModalityLUTSequence", stored)
        return values, 0.0, highest
    bits = int(header.BitsStored)
    low: float
    high: float
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.get("PixelRepresentation") else (0, 2**bits - 1)
    slope, intercept = (float(header[name].value) if _is_given(header, name) else default for name, default in _RESCALE)
    if not slope or not np.isfinite([slope, intercept]).all():
        raise ImageError("DICOM with an impossible rescale")
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    return stored.astype(np.float32) * slope + intercept, low, high


def _window(header: Any, values: np.ndarray) -> np.ndarray:
    """Brightness of values [H, W] under the first stored window; DICOM PS3.3 C.11.2.1."""
    centre, width = (_first(header[name].value) for name in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR")
    if not (np.isfinite([centre, width]).all() and width >= (1 if function == "LINEAR" else 1e-6)):
        raise ImageError(f"DICOM with an impossible window (centre {centre:g}, width {width:g})")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60))))
    if function == "LINEAR_EXACT":
        return np.asarray((values - centre) / width + 0.5)
    return np.asarray((values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5)


def _look_up(header: Any, name: str, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Replace values by the entries of a sequence's first table; DICOM PS3.3 C.11.1 and C.11.2.

    Args:
        header: pydicom's dataset.
        name: `ModalityLUTSequence` or `VOILUTSequence`.
        values: numbers [H, W]; those outside the table get its first or last entry.

    Returns:
        Entries, float32 [H, W], and the largest value that the table's bits can represent.

    Raises:
        ImageError: the table contradicts its descriptor.
    """
    item = header[name].value[0]
    n_entries, first, bits = (int(number) for number in item.LUTDescriptor)
    n_entries = n_entries or 65_536
    table = _read_entries(item.LUTData, n_entries, bits, "<u2" if header.original_encoding[1] else ">u2")
    if not 8 <= bits <= 16 or table.shape != (n_entries,):
        raise ImageError("DICOM whose lookup table contradicts its descriptor")
    # Clipped while still floats: a large rescale gives values outside the range of any integer type.
    positions = np.clip(np.rint(values.astype(np.float32)) - first, 0, n_entries - 1).astype(np.int64)
    return np.asarray(table.astype(np.float32)[positions]), float(2**bits - 1)


def _read_entries(data: Any, n_entries: int, bits: int, order: str) -> np.ndarray:
    """Entries of a table, stored as numbers or as bytes: words in the file's order, or two 8-bit entries per word."""
    words = np.frombuffer(data, order) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data))
    if bits == 8 and 2 * len(words) in (n_entries, n_entries + 1):
        return words.astype("<u2").view(np.uint8)[:n_entries]
    return words[:n_entries] if isinstance(data, bytes) else words


def _is_given(header: Any, name: str) -> bool:
    """Whether an attribute exists and is not empty; many files contain empty ones."""
    return header.get(name) not in (None, "", [])


def _first(value: Any) -> float:
    """The first of one or several numbers."""
    return float(value[0] if isinstance(value, (list, tuple)) or hasattr(value, "__getitem__") else value)
