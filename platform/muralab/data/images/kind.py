"""What a file is, decided by its first bytes. Names and suffixes are not trusted: exports have none, or wrong ones."""

from __future__ import annotations

from struct import Struct

HEAD_BYTES = 512
"""From the start of a file: enough to recognise every kind."""

PNG, JPEG, TIFF, BMP, DICOM = "PNG", "JPEG", "TIFF", "BMP", "DICOM"
PICTURE_KINDS = (PNG, JPEG, TIFF, BMP, DICOM)

_PICTURES = (
    (b"\x89PNG", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0\x08\0\0\0", TIFF),  # BigTIFF
    (b"MM\0+\0\x08\0\0", TIFF),
)
_OTHERS = (
    (0, b"GIF8", "GIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (8, b"WEBP", "WebP"),
    (4, b"ftyp", "HEIF or video"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP or office document"),
    (0, b"\xd0\xcf\x11\xe0", "office document"),  # also Thumbs.db
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"NRRD", "NRRD"),
    (0, b"MZ", "program"),
    (0, b"\x7fELF", "program"),
)
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
"""Sizes of the header that follows a BMP's file header."""

_PREAMBLE, _MAGIC = 128, b"DICM"
_META, _IDENTIFYING = 0x0002, 0x0008
"""The group that a data set starts with: that of its file's description, or that of its identification."""
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split(),
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFF_FFFF
_LONGEST = 0x1000_0000
"""Bytes; a longer value is not the start of a data set."""


def kind_of(head: bytes) -> str:
    """The kind of picture that a file holds.

    Args:
        head: its first `HEAD_BYTES`, or all of it.

    Returns:
        One of `PICTURE_KINDS` (DICOM also without the preamble that its files start with), or "" if it is none of them.
        DICOM objects without pixels are told apart by their header, see `muralab.data.headers`.
    """
    if has_preamble(head):
        return DICOM
    for start, kind in _PICTURES:
        if head.startswith(start):
            return kind
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return BMP
    return DICOM if is_bare_data_set(head) else ""


def describe(head: bytes) -> str:
    """What a file that is not a picture is: "PDF", "text", "empty file" ..."""
    if not head:
        return "empty file"
    for offset, start, kind in _OTHERS:
        if head.startswith(start, offset):
            return kind
    return "text" if _is_text(head) else "unknown content"


def has_preamble(head: bytes) -> bool:
    """Whether a file starts like a DICOM file: 128 bytes of anything, then DICM."""
    return head[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC


def is_bare_data_set(head: bytes) -> bool:
    """Whether bytes start like a DICOM data set that lacks the preamble, in any of its three encodings."""
    return any(_is_data_set(head, *encoding) for encoding in (("<", True), ("<", False), (">", True)))


def _is_data_set(head: bytes, order: str, explicit: bool) -> bool:
    """Whether bytes parse as two or more elements of a data set, in ascending order of their tags."""
    at, last, n_elements = 0, -1, 0
    while at + 12 <= len(head):
        group, element = _two(order).unpack_from(head, at)
        tag = group << 16 | element
        if tag <= last or (n_elements == 0 and group not in (_META, _IDENTIFYING)):
            return False
        if last >> 16 == _META != group:  # what follows the file's description may be encoded in another way
            return True
        length, start = _length(head, at, order, explicit)
        if length is None or (length > _LONGEST and length != _UNDEFINED):
            return False
        n_elements += 1
        if length == _UNDEFINED:
            break
        at, last = start + length, tag
    return n_elements >= 2


def _length(head: bytes, at: int, order: str, explicit: bool) -> tuple[int | None, int]:
    """Length and position of an element's value; None if it has no valid type."""
    if not explicit:
        return int(_four(order).unpack_from(head, at + 4)[0]), at + 8
    vr = head[at + 4 : at + 6]
    if vr in _SHORT_VRS:
        return int(_two(order).unpack_from(head, at + 4)[1]), at + 8
    if vr in _LONG_VRS:
        return int(_four(order).unpack_from(head, at + 8)[0]), at + 12
    return None, at


def _two(order: str) -> Struct:
    return _STRUCTS[order + "HH"]


def _four(order: str) -> Struct:
    return _STRUCTS[order + "I"]


_STRUCTS = {form: Struct(form) for form in ("<HH", ">HH", "<I", ">I")}


def _is_text(head: bytes) -> bool:
    """Whether bytes are text in UTF-8 (which may be cut off within a letter), UTF-16, or an 8-bit encoding."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return control == 0
