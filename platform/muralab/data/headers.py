"""What a DICOM header says about a picture: whose it is, of which study, what it shows; its pixels are not read."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from muralab.data.body_parts import read_part
from muralab.data.images.kind import DICOM, HEAD_BYTES, has_preamble, kind_of
from muralab.errors import DataError

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_DIRECTORY = b"1.2.840.10008.1.3.10"
_CLASSES_WITHOUT_PIXELS = (
    _DIRECTORY,
    b"1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    b"1.2.840.10008.5.1.4.1.1.88.",  # reports and key object selections
    b"1.2.840.10008.5.1.4.1.1.104.",  # encapsulated documents
)
_SMALL_BYTES = 65_536
"""A radiograph of 256 x 256 px has as many."""
_PIXELS = (0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010)
"""Float, double and integer pixel data."""
_MAX_READS = 200_000
"""Calls of `read` for one header: a radiograph needs about a thousand, and pydicom has no limit."""
_MAX_INFLATED_BYTES = 2**22
"""Of a deflated file; its header is in front."""
_TAGS = (
    "SOPInstanceUID",
    "StudyDate",
    "AccessionNumber",
    "Modality",
    "Manufacturer",
    "InstitutionName",
    "StudyDescription",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "BodyPartExamined",
    "ProtocolName",
    "ViewPosition",
    "StudyInstanceUID",
    "Laterality",
    "ImageLaterality",
    "NumberOfFrames",
    "Rows",
    "EncryptedAttributesSequence",
    "BurnedInAnnotation",
)
_OTHER_MODALITIES = frozenset(
    (
        "CT",
        "MR",
        "US",
        "PT",
        "NM",
        "ES",
        "XC",
        "SM",
        "GM",
        "OP",
        "OPT",
        "OCT",
        "IVUS",
        "IVOCT",
        "ECG",
        "EPS",
        "HD",
        "SEG",
    )
) | frozenset(("RTDOSE", "RTPLAN", "RTSTRUCT", "REG", "BMD", "BDUS", "LEN", "AU", "FID", "PLAN"))
"""Modalities whose pixels are not radiographs; a secondary capture (OT, SC) may be one."""
_OBJECTS = {"PR": "presentation state (PR)", "SR": "report (SR)", "KO": "key object selection (KO)"}
_AGE_UNITS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_SIDES = frozenset("LRBU")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What one file's header says; an attribute that it lacks is empty text."""

    unused: str = ""
    """Why the object is not a still radiograph; empty if it is one."""
    patient: str = ""
    """PatientID, or else name and date of birth."""
    issuer: str = ""
    """Who gave the PatientID; two hospitals may give the same one."""
    study: str = ""
    """StudyInstanceUID."""
    accession: str = ""
    date: str = ""
    """Of the study, YYYYMMDD."""
    instance: str = ""
    """SOPInstanceUID."""
    part: str = ""
    """Body part in lower case, see `read_part`."""
    part_is_guessed: bool = False
    """Whether the part is not from BodyPartExamined but from a description."""
    view: str = ""
    laterality: str = ""
    """L, R, B (both) or U (unpaired)."""
    device: str = ""
    """Manufacturer and model."""
    site: str = ""
    """InstitutionName."""
    age: str = ""
    """In years, as a decimal number."""
    sex: str = ""
    """M, F or O."""
    burned_in: str = ""
    """BurnedInAnnotation: YES, NO or empty."""


def may_lack_pixels(head: bytes, n_bytes: int) -> bool:
    """Whether a DICOM file may be no picture, by its start and its size: its header decides.

    Args:
        head: the first `HEAD_BYTES` of the file, which name its class.
        n_bytes: of the file.
    """
    return n_bytes < _SMALL_BYTES or any(uid in head for uid in _CLASSES_WITHOUT_PIXELS)


def read_header(path: str | Path) -> Header | None:
    """Read the header of a DICOM file, with or without its preamble.

    Returns:
        None if it cannot be read: a damaged file, about which the decoder says more.

    Raises:
        OSError: the file cannot be read.
    """
    with _CountedFile(io.FileIO(path)) as file:
        try:
            return _read(file)
        except OSError:
            raise
        except Exception:  # pydicom may raise anything on malformed bytes
            return None


def is_burned_in(path: str | Path) -> bool:
    """Whether a DICOM file says that names may be burned into its pixels; False for a file of another kind.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
        header = read_header(path) if kind == DICOM else None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"The image {path} cannot be read: {reason}. Fix that and start again.") from error
    return header is not None and header.burned_in == "YES"


def _read(file: _CountedFile) -> Header | None:
    from pydicom import config
    from pydicom.filereader import read_partial

    # pydicom's warnings about invalid values would print parts of a patient's file.
    config.settings.reading_validation_mode = config.IGNORE
    head = file.peek(2 * HEAD_BYTES)
    if _DIRECTORY in head:
        return Header(unused="DICOMDIR")
    seen: list[int] = []

    def at_pixels(tag: int, *_: object) -> bool:
        number = int(tag)  # pydicom's own comparison takes ten times as long
        if number in _PIXELS:
            seen.append(number)
        return number >= _PIXELS[0]

    source = _open_data_set(file, head)
    header = read_partial(source, at_pixels, force=True, specific_tags=_tags())
    at, n_bytes = source.tell(), source.seek(0, io.SEEK_END)
    claims = not header or "Rows" in header or "EncryptedAttributesSequence" in header
    is_object = _text(header, "Modality").upper() in _OBJECTS or any(uid in head for uid in _CLASSES_WITHOUT_PIXELS)
    if not seen and not is_object and (claims or at > n_bytes or file.is_cut):
        return None  # a damaged picture: the decoder says why it cannot be read
    return _build(header, has_pixels=bool(seen))


@cache
def _tags() -> list[Any]:
    from pydicom.tag import Tag

    return [Tag(name) for name in _TAGS]


class _TooManyReadsError(Exception):
    pass


class _CountedFile(io.BufferedReader):
    """A file that stops a parser that would not end: pydicom makes an object of every item of a sequence."""

    n_reads = 0
    is_cut = False
    """Whether a read has found fewer bytes than it needs, but some."""

    def read(self, size: int | None = -1, /) -> bytes:
        self.n_reads += 1
        if self.n_reads > _MAX_READS:
            raise _TooManyReadsError
        piece = super().read(size)
        self.is_cut = self.is_cut or (size is not None and 0 < len(piece) < size)
        return piece


def _open_data_set(file: _CountedFile, head: bytes) -> BinaryIO:
    """The file itself; of a deflated one the start of its data set, inflated."""
    if _DEFLATED not in head or not has_preamble(head):
        return file
    meta_bytes = 128 + 4 + 12 + int.from_bytes(head[140:144], "little")
    deflated = file.read()[meta_bytes:]
    # Explicit little endian, as in every deflated file; pydicom finds that out by itself.
    return io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, _MAX_INFLATED_BYTES))


def _build(header: Any, *, has_pixels: bool) -> Header:
    text = {name: _text(header, name) for name in _TAGS}
    part, is_guessed = read_part(
        text["BodyPartExamined"], text["ProtocolName"], text["SeriesDescription"], text["StudyDescription"]
    )
    side = (text["ImageLaterality"] or text["Laterality"]).upper()[:1]
    return Header(
        unused=_why_unused(text, has_pixels),
        patient=text["PatientID"] or _name_and_birth(text),
        issuer=text["IssuerOfPatientID"],
        study=text["StudyInstanceUID"],
        accession=text["AccessionNumber"],
        date=text["StudyDate"],
        instance=text["SOPInstanceUID"],
        part=part,
        part_is_guessed=is_guessed,
        view=text["ViewPosition"].upper(),
        laterality=side if side in _SIDES else "",
        device=" ".join(word for word in (text["Manufacturer"], text["ManufacturerModelName"]) if word),
        site=text["InstitutionName"],
        age=_age(text),
        sex=text["PatientSex"].upper()[:1] if text["PatientSex"].upper()[:1] in ("M", "F", "O") else "",
        burned_in=text["BurnedInAnnotation"].upper(),
    )


def _text(header: Any, name: str) -> str:
    """An attribute as text on one line; of several values the first."""
    try:
        value = header.get(name)
    except Exception:  # a value that does not parse is as good as missing
        return ""
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        value = value[0] if len(value) else ""
    return " ".join(str(value).replace("\0", " ").split())


def _why_unused(text: dict[str, str], has_pixels: bool) -> str:
    modality = text["Modality"].upper()
    if not has_pixels:
        return _OBJECTS.get(modality, "DICOM object without pixels")
    if modality in _OTHER_MODALITIES:
        return f"{modality} image, not a radiograph"
    frames = text["NumberOfFrames"]
    return "multi-frame DICOM" if frames.isdecimal() and int(frames) > 1 else ""


def _name_and_birth(text: dict[str, str]) -> str:
    """Who a patient without an id is; a name alone could be two patients'."""
    name, born = text["PatientName"], text["PatientBirthDate"]
    return f"{name} {born}" if name.strip("^ ") and born else ""


def _age(text: dict[str, str]) -> str:
    """Age in years, from PatientAge ("045Y") or else the dates of birth and study."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text["PatientAge"].upper())
    if match:
        years = int(match[1]) * _AGE_UNITS[match[2]]
        return f"{years:.0f}" if match[2] == "Y" else f"{years:.1f}"
    born, date = text["PatientBirthDate"], text["StudyDate"]
    if not (re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", date)) or date < born:
        return ""
    had_birthday = date[4:] >= born[4:]
    return str(int(date[:4]) - int(born[:4]) - (not had_birthday))
