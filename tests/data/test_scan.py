"""Which files of a folder are pictures, and what becomes of the others."""

from __future__ import annotations

import os

import numpy as np
import pytest

from muralab.data.scan import count_reasons, scan_folder, spell, unused_note
from tests.fixtures.payloads import encode_dicom, valid_files

GREY = np.zeros((20, 20), np.uint8)
PNG, DICOM = valid_files()["png"], encode_dicom(GREY, PatientID="p", StudyInstanceUID="1.2")
NAMES = ("a.dcm", "b.dicom", "c.DCM", "d.ima", "e.dic", "f.img", "g.1.2.840.5", "h.CR", "i.dcm.bak", "IM1")


def write(folder, files: dict[str, bytes]):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def reasons(scan) -> dict[str, str]:
    return {one.name: one.reason for one in scan.unused}


@pytest.mark.parametrize("data", [DICOM, DICOM[132:], PNG])
def test_the_name_of_a_picture_does_not_matter(tmp_path, data):
    scan = scan_folder(write(tmp_path, dict.fromkeys(NAMES, data)))
    assert [one.name for one in scan.pictures] == sorted(NAMES)
    assert scan.unused == []


def test_what_is_not_a_picture_is_named_with_its_reason(tmp_path):
    folder = write(
        tmp_path,
        {
            "dicomdir": encode_dicom(GREY, PixelData=None, Rows=None),
            "DICOMDIR": b"anything",
            "sub/PR1": encode_dicom(GREY, PixelData=None, Rows=None, Modality="PR"),
            "README.txt": b"words",
            ".DS_Store": b"x",
            "empty": b"",
        },
    )
    os.mkfifo(folder / "pipe")
    assert reasons(scan_folder(folder)) == {
        ".DS_Store": "hidden",
        "DICOMDIR": "DICOMDIR",
        "README.txt": "not a picture (text)",
        "dicomdir": "DICOMDIR",
        "empty": "not a picture (empty file)",
        "pipe": "not a regular file",
        "sub/PR1": "presentation state (PR)",
    }


def test_a_file_that_claims_to_be_a_picture_is_reported_as_damaged_not_dropped(tmp_path):
    scan = scan_folder(write(tmp_path, {"a.PNG": b"words", "b.dcm": b"", "c": b"words"}))
    assert [one.name for one in scan.pictures] == ["a.PNG", "b.dcm"]
    assert reasons(scan) == {"c": "not a picture (text)"}


@pytest.mark.parametrize("own", ["image1.png", "image1.dcm", "image1", "IMAGE.1"])
def test_a_heat_map_beside_its_picture_is_no_view(tmp_path, own):
    heat = f"{own.partition('.')[0]}.heat.png"
    scan = scan_folder(write(tmp_path, {own: DICOM, heat: PNG}))
    assert [one.name for one in scan.pictures] == [own]
    assert reasons(scan) == {heat: "heat map of another file"}


def test_a_picture_called_heat_alone_is_one(tmp_path):
    assert len(scan_folder(write(tmp_path, {"x.heat.png": PNG, "y.png": PNG})).pictures) == 2


def test_a_list_saves_opening_files(tmp_path):
    scan = scan_folder(write(tmp_path, {"a": b"words", "b": b"words"}), prefix="t/", listed={"t/a"})
    assert [one.name for one in scan.pictures] == ["t/a"]
    assert list(reasons(scan)) == ["t/b"]


def test_every_file_is_opened_once_and_counted(tmp_path):
    seen: list[tuple[int, int]] = []
    write(tmp_path, {f"{n}.png": PNG for n in range(100)})
    scan_folder(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 100), (100, 100)]


def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path):
    write(tmp_path, {f"s{n % 7}/{n}": PNG if n % 3 else b"words" for n in range(200)})
    assert scan_folder(tmp_path, workers=0) == scan_folder(tmp_path, workers=5)


def test_a_very_deep_folder_is_walked(tmp_path):
    folder = tmp_path
    for _ in range(600):
        folder = folder / "a"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(PNG)
    assert len(scan_folder(tmp_path).pictures) == 1


def test_the_note_counts_by_reason_and_names_the_first(tmp_path):
    write(tmp_path, {".hidden": b"", "a.txt": b"words", "b.txt": b"words", "c.pdf": b"%PDF"})
    unused = scan_folder(tmp_path).unused
    (note,) = unused_note(unused, "/x")
    assert note.splitlines()[0] == (
        "4 files found in /x are not used: 2 not a picture (text), 1 hidden, 1 not a picture (PDF)."
    )
    assert note.splitlines()[1:] == [
        "  1. a.txt: not a picture (text)",
        "  2. b.txt: not a picture (text)",
        "  3. c.pdf: not a picture (PDF)",
    ]
    assert list(count_reasons(unused)) == ["not a picture (text)", "hidden", "not a picture (PDF)"]
    assert unused_note([], "/x") == []


def test_names_of_other_bytes_than_utf8_can_be_printed():
    assert spell(os.fsdecode(b"st\xff")) == "st\\xff"


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.88.11"])
def test_without_headers_large_pictures_are_not_parsed_and_objects_without_pixels_are_still_known(tmp_path, sop_class):
    large = encode_dicom(np.zeros((300, 300), np.uint8), PatientID="p")
    more = {"Modality": "SR", "EncapsulatedDocument": bytes(70_000)}
    report = encode_dicom(GREY, PixelData=None, Rows=None, SOPClassUID=sop_class, **more)
    write(tmp_path, {"large": large, "small": DICOM, "report": report})
    scan = scan_folder(tmp_path, headers=False)
    assert {one.name: one.header is None for one in scan.pictures} == {"large": True, "small": False}
    assert list(reasons(scan)) == ["report"]
