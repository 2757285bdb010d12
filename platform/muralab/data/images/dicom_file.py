"""Bytes of a DICOM file -> its data set: with or without preamble and file meta group, also deflated; within limits."""

from __future__ import annotations

import zlib
from typing import Any

from muralab.data.images.dicom_limits import MAX_READS, TOO_MANY, LimitedFile
from muralab.data.images.kind import has_preamble
from muralab.errors import ImageError

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RAW = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG = (JPEG_BASELINE, JPEG_EXTENDED, *JPEG_LOSSLESS)
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
COMPRESSED = (RLE, *JPEG, *JPEG_LS, *JPEG_2000)

_PREAMBLE_BYTES = 132
_META_GROUP = b"\x02\x00"
_HEADER_BYTES = 2**24
"""Of a deflated file, in addition to its pixels."""
_BYTES_PER_PIXEL = 2
_FIRST_ITEM = b"\xfe\xff\x00\xe0"


def read_data_set(data: bytes, *, max_pixels: int) -> Any:
    """Read a file's header; its pixels stay as they are stored.

    Args:
        data: the file's bytes.
        max_pixels: limits what a deflated file may inflate to.

    Returns:
        pydicom's data set, with a transfer syntax of `RAW` or `COMPRESSED` in `file_meta`.

    Raises:
        ImageError: an unsupported transfer syntax, truncated, or too large.
    """
    from pydicom import config

    # pydicom's warnings about invalid values would print parts of a patient's file into the log.
    config.settings.reading_validation_mode = config.IGNORE

    file = LimitedFile(data)
    meta = _read_meta(file, _PREAMBLE_BYTES if has_preamble(data) else 0)
    start = file.tell()
    syntax = str(meta.get("TransferSyntaxUID", "")) or _guess_syntax(data[start : start + 8])
    _check_syntax(syntax)
    if syntax == DEFLATED:
        file = LimitedFile(_inflate(data[start:], max_pixels * _BYTES_PER_PIXEL + _HEADER_BYTES))
    header = _read_elements(file, syntax)
    if not len(header):  # pydicom forgets all elements where the last one has no end
        raise ImageError("broken or truncated DICOM")
    if not meta.get("TransferSyntaxUID") and _is_encapsulated(header):
        raise ImageError("compressed DICOM without a transfer syntax, so its pixels cannot be decoded")
    meta.TransferSyntaxUID = syntax
    header.file_meta = meta
    return header


def _read_elements(file: LimitedFile, syntax: str) -> Any:
    from pydicom.filereader import read_dataset

    try:
        return read_dataset(file, syntax == IMPLICIT, syntax != BIG_ENDIAN)
    except OSError:
        if file.n_reads > MAX_READS:  # pydicom replaces some read errors by its own
            raise ImageError(TOO_MANY) from None
        raise


def _read_meta(file: LimitedFile, start: int) -> Any:
    """The file meta group, which may be missing; leaves the file at what follows."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    file.seek(start)
    if file.getbuffer()[start : start + 2] != _META_GROUP:
        return FileMetaDataset()
    return FileMetaDataset(read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2))


def _guess_syntax(start: bytes) -> str:
    """The encoding of a data set by its first element; files without a meta group are never compressed."""
    if not (start[4:6].isalpha() and start[4:6].isupper()):
        return IMPLICIT
    return BIG_ENDIAN if start[:1] == b"\0" else EXPLICIT


def _is_encapsulated(header: Any) -> bool:
    """Whether pixels are stored in items, as only compressed ones are; looks at the bytes alone."""
    pixels = header.get_item("PixelData") if "PixelData" in header else None
    value = getattr(pixels, "value", None)
    return isinstance(value, bytes) and value.startswith(_FIRST_ITEM)


def _check_syntax(syntax: str) -> None:
    from pydicom.uid import UID

    if syntax not in RAW + COMPRESSED:
        raise ImageError(f"DICOM stored as {UID(syntax).name[:80]}, which is not supported; export it uncompressed")


def _inflate(data: bytes, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data, max_bytes)
    if inflater.unconsumed_tail:
        raise ImageError("a deflated DICOM that is too large")
    if not inflater.eof:
        raise ImageError("broken or truncated DICOM")
    return inflated
