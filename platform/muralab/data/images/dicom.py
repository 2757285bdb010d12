"""One still, grey DICOM picture -> uint8, with its rescale, window and polarity applied.

Shape legend: H height (Rows), W width (Columns).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from muralab.data.images.decode import STRIP_ROWS, check_size
from muralab.data.images.dicom_limits import MAX_FRAGMENTS, MAX_READS, TOO_MANY, BoundedFile, check_pixel_data
from muralab.data.images.jpeg_limits import check_jpeg
from muralab.data.images.lookup_table import look_up
from muralab.errors import ImageError

# Raw pixels, and the two compressions whose header Pillow can check before it takes memory. Deflated files are
# refused: pydicom inflates all of one, however large, before anything can be looked at.
_RAW = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_PILLOW = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")


def decode_dicom(data: bytes, *, max_pixels: int) -> np.ndarray:
    """Decode a DICOM file.

    Pixels are rescaled and windowed as the file says; without a window the full range of the stored bits counts, so
    that an 8-bit DICOM and a PNG of the same pixels are equal. MONOCHROME1 is inverted.

    Args:
        data: the file's bytes, with DICOM's preamble.
        max_pixels: larger pictures are refused from their header.

    Returns:
        Grey values, uint8 [H, W].

    Raises:
        ImageError: encrypted, compressed in a way that is not read, several frames, colour, too small or large,
            damaged, or no DICOM at all; the text is the reason.
    """
    file = BoundedFile(data)
    try:
        _check_syntax(file)
        header = _read(file)
        _check_header(header, max_pixels)
        return _to_grey(header)
    except ImageError:
        raise
    except Exception as error:  # a decoder that is fed strange bytes may raise anything
        if file.n_reads > MAX_READS:  # some of pydicom's places turn an error of reading into one of their own
            raise ImageError(TOO_MANY) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ImageError(f"broken DICOM ({reason})") from None


def _read(file: BoundedFile) -> Any:
    import pydicom

    file.seek(0)
    return pydicom.dcmread(file)


def _check_syntax(file: BoundedFile) -> None:
    """Refuse, from the file's meta group alone, an encoding that is not read."""
    from pydicom import config
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    # pydicom's warnings of odd values would print pieces of a patient's file into the log.
    config.settings.reading_validation_mode = config.IGNORE

    file.seek(132)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if not syntax:
        raise ImageError("DICOM without a transfer syntax, so damaged or no DICOM at all")
    if syntax not in _RAW + _PILLOW:
        raise ImageError(f"DICOM stored as {UID(syntax).name[:80]}, which is not read; export it uncompressed")


def _check_header(header: Any, max_pixels: int) -> None:
    """Refuse what is not one still grey picture, before its pixels are unpacked."""
    if "PixelData" not in header:
        sealed = "EncryptedAttributesSequence" in header
        raise ImageError("encrypted DICOM" if sealed else "DICOM without pixel data")
    if "EncryptedAttributesSequence" in header and "PhotometricInterpretation" not in header:
        raise ImageError("encrypted DICOM")
    missing = [name for name in ("Rows", "Columns", "BitsAllocated", "BitsStored") if not header.get(name)]
    if missing:
        raise ImageError(f"DICOM without {', '.join(missing)}")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise ImageError(f"multi-frame DICOM ({header.NumberOfFrames} frames); send one still picture a row")
    kind = str(header.get("PhotometricInterpretation", "none"))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"DICOM with {kind[:40]} colours; only MONOCHROME1 and MONOCHROME2 are read")
    if header.BitsAllocated not in (8, 16) or not 8 <= header.BitsStored <= header.BitsAllocated:
        raise ImageError(f"DICOM with {header.BitsStored} of {header.BitsAllocated} bits; only 8 to 16 bits are read")
    if header.get("HighBit") not in (None, header.BitsStored - 1):  # of old; the values would be read shifted
        raise ImageError(f"DICOM whose {header.BitsStored} bits end at {header.HighBit}; only the lowest bits are read")
    check_size(int(header.Columns), int(header.Rows), max_pixels=max_pixels)
    check_pixel_data(header)
    if str(header.file_meta.TransferSyntaxUID) in _PILLOW:
        _check_frame(header)


def _check_frame(header: Any) -> None:
    """A compressed frame has a header of its own, which may claim another size than the DICOM's."""
    from PIL import Image
    from pydicom.encaps import get_frame

    if header.PixelData.count(b"\xfe\xff\x00\xe0") > MAX_FRAGMENTS:
        raise ImageError("a DICOM whose picture is in too many pieces")
    if "ExtendedOffsetTable" in header:  # would let pydicom decode another frame than the one that is checked here
        del header.ExtendedOffsetTable
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    if frame.startswith(b"\xff\xd8"):
        check_jpeg(frame)
    with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
        if image.size != (header.Columns, header.Rows):
            raise ImageError("DICOM whose compressed picture has another size than its header says")
        if image.mode != "L" and not image.mode.startswith("I"):  # refused after a gigabyte, otherwise
            raise ImageError("DICOM whose compressed picture has colours, though its header says grey")


def _to_grey(header: Any) -> np.ndarray:
    header.pixel_array_options(view_only=True)  # raw pixels stay where they are
    stored = header.pixel_array
    if stored.shape != (header.Rows, header.Columns):
        raise ImageError("DICOM whose pixels do not fill its rows and columns")
    grey = np.empty(stored.shape, np.uint8)
    for top in range(0, len(stored), STRIP_ROWS):
        shares = _to_shares(header, stored[top : top + STRIP_ROWS])
        if not np.isfinite(shares).all():
            raise ImageError("DICOM whose rescale or window gives no finite values")
        grey[top : top + STRIP_ROWS] = np.rint(np.clip(shares, 0, 1) * 255)
    return grey


def _to_shares(header: Any, stored: np.ndarray) -> np.ndarray:
    """Stored values of some rows -> share of white that each has, mostly 0 to 1."""
    values, low, high = _rescale(header, stored)
    if header.get("VOILUTSequence"):
        entries, highest = look_up(header, "VOILUTSequence", values)
        shares = entries / highest
    elif _is_given(header, "WindowCenter") and _is_given(header, "WindowWidth"):
        shares = _window(header, values)
    else:
        shares = (values - low) / (high - low)
    return np.asarray(1 - shares if header.PhotometricInterpretation == "MONOCHROME1" else shares)


def _rescale(header: Any, stored: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Modality values float32 [H, W], and the lowest and highest that the stored bits could hold."""
    if header.get("ModalityLUTSequence"):
        values, highest = look_up(header, "ModalityLUTSequence", stored)
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


_RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))


def _window(header: Any, values: np.ndarray) -> np.ndarray:
    """Share of the first stored window that each value reaches, [H, W]; DICOM PS3.3 C.11.2.1."""
    centre, width = (_first(header[name].value) for name in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR")
    if not (np.isfinite([centre, width]).all() and width >= (1 if function == "LINEAR" else 1e-6)):
        raise ImageError(f"DICOM with an impossible window (centre {centre:g}, width {width:g})")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60))))
    if function == "LINEAR_EXACT":
        return np.asarray((values - centre) / width + 0.5)
    return np.asarray((values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5)


def _is_given(header: Any, name: str) -> bool:
    """Whether an attribute is there and not empty, as many files have it."""
    return header.get(name) not in (None, "", [])


def _first(value: Any) -> float:
    """The first of one or several numbers."""
    return float(value[0] if isinstance(value, (list, tuple)) or hasattr(value, "__getitem__") else value)
