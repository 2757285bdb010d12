"""What a file is, from its first bytes alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from muralab.data.images.kind import HEAD_BYTES, describe, kind_of
from tests.fixtures.payloads import EXPLICIT, IMPLICIT, encode_dicom, invalid_files, valid_files

BIG_ENDIAN = "1.2.840.10008.1.2.2"


def encode(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (20, 20)).save(buffer, file_format)
    return buffer.getvalue()


def bare(syntax: str) -> bytes:
    """A data set without preamble and file meta group."""
    dataset, buffer = Dataset(), io.BytesIO()
    dataset.SOPClassUID, dataset.Modality, dataset.PatientID = "1.2.840.10008.5.1.4.1.1.1", "DX", "p"
    dataset.save_as(buffer, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG_ENDIAN)
    return buffer.getvalue()


@pytest.mark.parametrize("name", valid_files())
def test_every_readable_file_is_a_picture(name):
    assert kind_of(valid_files()[name][:HEAD_BYTES]) == name.split()[0].upper()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP"])
def test_pictures_are_recognised_whatever_they_are_called(file_format):
    assert kind_of(encode(file_format)) == file_format


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_a_data_set_without_preamble_is_dicom(syntax):
    assert kind_of(bare(syntax)[:HEAD_BYTES]) == "DICOM"


def test_a_file_meta_group_without_preamble_is_dicom():
    assert kind_of(encode_dicom(np.zeros((20, 20), np.uint8))[132 : 132 + HEAD_BYTES]) == "DICOM"


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"", "empty file"),
        (b"GIF89a", "GIF"),
        (b"%PDF-1.4", "PDF"),
        (b"PK\x03\x04", "ZIP or office document"),
        ("Befund: unauffällig\r\n".encode("cp1252"), "text"),
        ("wrist".encode("utf-16"), "text"),
        (b"BM is a text, too", "text"),
        (b"\x08\x00\x05\x00" + bytes(range(200)), "unknown content"),
        (bytes(200), "unknown content"),
    ],
)
def test_other_files_are_no_pictures_and_named(head, what):
    assert (kind_of(head), describe(head)) == ("", what)


def test_random_bytes_are_no_data_set():
    random = np.random.default_rng(0)
    starts = (b"", b"\x02\x00", b"\x08\x00", b"\x08\x00\x05\x00")
    heads = [start + random.bytes(HEAD_BYTES) for start in starts for _ in range(500)]
    assert [head[:8] for head in heads if kind_of(head)] == []


def test_text_that_pretends_to_be_dicom_is_left_to_the_decoder():
    assert kind_of(invalid_files()["text with a DICOM prefix"][0]) == "DICOM"
