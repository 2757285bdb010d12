"""What a DICOM header says, and which objects are not radiographs."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from muralab.data.body_parts import read_part
from muralab.data.files import read_image
from muralab.data.headers import is_burned_in, read_header
from muralab.errors import DataError
from tests.fixtures.payloads import IMPLICIT, encode_dicom

GREY = np.zeros((20, 20), np.uint8)
FULL = {
    "PatientID": " p1 ",
    "StudyInstanceUID": "1.2",
    "SOPInstanceUID": "1.2.3",
    "AccessionNumber": "A1",
    "StudyDate": "20200229",
    "BodyPartExamined": "HAND",
    "ViewPosition": "PA",
    "ImageLaterality": "L",
    "Manufacturer": "Agfa",
    "ManufacturerModelName": "DX-D",
    "InstitutionName": "North",
    "PatientAge": "045Y",
    "PatientSex": "F",
    "BurnedInAnnotation": "YES",
}


def read(tmp_path, data: bytes):
    (tmp_path / "f").write_bytes(data)
    return read_header(tmp_path / "f")


def header(tmp_path, **attributes):
    return read(tmp_path, encode_dicom(GREY, **attributes))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", IMPLICIT])
def test_a_header_is_read_as_plain_text(tmp_path, syntax):
    found = header(tmp_path, syntax=syntax, **FULL)
    assert (found.patient, found.study, found.instance, found.accession) == ("p1", "1.2", "1.2.3", "A1")
    assert (found.date, found.part, found.view, found.laterality) == ("20200229", "hand", "PA", "L")
    assert (found.device, found.site, found.age, found.sex) == ("Agfa DX-D", "North", "45", "F")
    assert (found.burned_in, found.unused, found.part_is_guessed) == ("YES", "", False)


def test_a_file_without_preamble_is_read(tmp_path):
    assert read(tmp_path, encode_dicom(GREY, **FULL)[132:]).patient == "p1"


def test_a_deflated_file_is_read_and_not_inflated_whole(tmp_path):
    data = encode_dicom(GREY, **FULL)
    length = 144 + int.from_bytes(data[140:144], "little")
    meta, plain = data[:length], data[length:]
    deflater = zlib.compressobj(wbits=-15)
    body = deflater.compress(plain + bytes(2**26)) + deflater.flush()
    syntax = b"1.2.840.10008.1.2.1.99"
    old = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00"
    assert old in meta
    grown = meta.replace(old, b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax)
    size = (len(grown) - 144).to_bytes(4, "little")
    assert read(tmp_path, grown[:140] + size + grown[144:] + body).study == "1.2"


@pytest.mark.parametrize(
    ("attributes", "age"),
    [
        ({"PatientAge": "018M"}, "1.5"),
        ({"PatientAge": "010D"}, "0.0"),
        ({"PatientAge": "45"}, ""),
        ({"PatientBirthDate": "19800301", "StudyDate": "20200229"}, "39"),
        ({"PatientBirthDate": "19800229", "StudyDate": "20200229"}, "40"),
        ({"PatientBirthDate": "20210101", "StudyDate": "20200229"}, ""),
    ],
)
def test_an_age_is_in_years(tmp_path, attributes, age):
    assert header(tmp_path, **attributes).age == age


def test_a_patient_without_an_id_is_name_and_date_of_birth_or_unknown(tmp_path):
    named = header(tmp_path, PatientID="", PatientName="Doe^Jane", PatientBirthDate="19800301")
    assert named.patient == "Doe^Jane 19800301"
    assert header(tmp_path, PatientName="Doe^Jane").patient == ""


def save(modality: str, sop_class: str, **attributes) -> bytes:
    """An object without pixels."""
    dataset, buffer = Dataset(), io.BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, "1.2", modality
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("modality", "sop_class", "reason"),
    [
        ("PR", "1.2.840.10008.5.1.4.1.1.11.1", "presentation state (PR)"),
        ("SR", "1.2.840.10008.5.1.4.1.1.88.11", "report (SR)"),
        ("KO", "1.2.840.10008.5.1.4.1.1.88.59", "key object selection (KO)"),
        ("DX", "1.2.840.10008.5.1.4.1.1.1.1", "DICOM object without pixels"),
        ("", "1.2.840.10008.1.3.10", "DICOMDIR"),
    ],
)
def test_objects_without_pixels_are_named(tmp_path, modality, sop_class, reason):
    assert read(tmp_path, save(modality, sop_class)).unused == reason


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Modality": "CT"}, "CT image, not a radiograph"),
        ({"NumberOfFrames": 30}, "multi-frame DICOM"),
        ({"NumberOfFrames": 1}, ""),
        ({"Modality": "OT"}, ""),
        ({}, ""),
    ],
)
def test_pictures_that_are_no_still_radiographs_are_named(tmp_path, attributes, reason):
    assert header(tmp_path, **attributes).unused == reason


@pytest.mark.parametrize(
    "data",
    [
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + b"words " * 9,
        encode_dicom(GREY)[:-500],
        save("DX", "1.2.840.10008.5.1.4.1.1.1.1", Rows=20, Columns=20),
    ],
)
def test_a_damaged_picture_is_left_to_the_decoder(tmp_path, data):
    found = read(tmp_path, data)
    assert found is None or found.unused == ""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("WRIST",), ("wrist", False)),
        (("LWRIST",), ("wrist", False)),
        (("Upper Arm",), ("humerus", False)),
        (("HAND WRIST",), ("hand wrist", False)),
        (("KNEE",), ("knee", False)),
        (("", "Handgelenk re. 2 Ebenen"), ("wrist", True)),
        (("", "", "DX HAND PA"), ("hand", True)),
        (("", "hand or wrist", "elbow"), ("elbow", True)),
        (("", "C-arm"), ("", False)),
        (("",), ("", False)),
    ],
)
def test_a_part_is_muras_name_where_there_is_one(texts, expected):
    assert read_part(*texts) == expected


def test_an_object_without_pixels_may_describe_an_image_all_the_same(tmp_path):
    assert header(tmp_path, PixelData=None, Modality="PR").unused == "presentation state (PR)"
    assert read(tmp_path, save("DX", "1.2.840.10008.5.1.4.1.1.88.11", Rows=20)).unused == "DICOM object without pixels"


def test_names_burned_into_pixels_are_seen_without_decoding_and_with_it(tmp_path):
    marked, plain, other = tmp_path / "marked", tmp_path / "plain.dcm", tmp_path / "a.png"
    marked.write_bytes(encode_dicom(GREY, BurnedInAnnotation="YES")[132:])  # a data set without its preamble
    plain.write_bytes(encode_dicom(GREY, BurnedInAnnotation="NO"))
    other.write_bytes(b"\x89PNG")
    assert [is_burned_in(path) for path in (marked, plain, other)] == [True, False, False]
    assert [read_image(str(path)).burned_in for path in (marked, plain)] == [True, False]
    with pytest.raises(DataError, match="cannot be read: No such file"):
        is_burned_in(tmp_path / "none")
