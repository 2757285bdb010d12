"""Pictures that appear twice count once; different ones that share an identifier are all kept."""

from __future__ import annotations

import numpy as np
import pytest

from muralab.data.copies import drop_copies
from muralab.data.scan import scan_folder
from tests.fixtures.payloads import IMPLICIT, encode, encode_dicom

GREY = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
DICOM = encode_dicom(GREY, SOPInstanceUID="1.2.3", PatientID="a")
OTHER = encode_dicom(255 - GREY, SOPInstanceUID="1.2.3", PatientID="a")


def kept(folder, files: dict[str, bytes], **options) -> tuple[list[str], list[str]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    pictures, copies, notes = drop_copies(scan_folder(folder).pictures, **options)
    assert {one.reason for one in copies} <= {"copy of another picture"}
    assert len(pictures) + len(copies) == len(files)
    return [one.name for one in pictures], notes


@pytest.mark.parametrize(
    "again",
    [
        DICOM,
        encode_dicom(GREY, SOPInstanceUID="1.2.3", PatientID="renamed"),
        encode_dicom(GREY, SOPInstanceUID="1.2.3", PatientID="a", syntax=IMPLICIT),
    ],
)
def test_one_object_counts_once_whatever_else_its_header_says(tmp_path, again):
    assert kept(tmp_path, {"1": DICOM, "2": again}) == (["1"], [])


def test_different_pixels_under_one_identifier_are_kept_with_a_note(tmp_path):
    names, (note,) = kept(tmp_path, {"1": DICOM, "2": OTHER, "3": DICOM})
    assert names == ["1", "2"]
    assert note.startswith("2 pictures share a SOPInstanceUID with a picture of other pixels")


def test_equal_bytes_count_once_and_equal_sizes_do_not_matter(tmp_path):
    png, other = encode(GREY, "BMP"), encode(255 - GREY, "BMP")
    assert len(png) == len(other)
    assert kept(tmp_path, {"1": png, "2": other, "3": png}) == (["1", "2"], [])


def test_equal_starts_are_compared_to_the_end(tmp_path):
    start = encode(np.zeros((300, 300), np.uint8), "BMP")
    assert kept(tmp_path, {"1": start + b"a", "2": start + b"b"}) == (["1", "2"], [])


def test_copies_may_be_limited_to_one_study(tmp_path):
    assert kept(tmp_path, {"1": DICOM, "2": DICOM}, within=["s1", "s2"]) == (["1", "2"], [])


def test_undecodable_files_of_one_identifier_count_once(tmp_path):
    broken = encode_dicom(GREY, SOPInstanceUID="1.2.3", Columns=99)
    assert kept(tmp_path, {"1": broken, "2": broken + b"\0\0"})[0] == ["1"]
