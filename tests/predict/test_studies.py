"""DICOM files of several studies in one folder."""

from __future__ import annotations

import numpy as np
import pytest

from muralab.predict.pictures import find_pictures
from muralab.predict.studies import read_study
from tests.fixtures.payloads import encode_dicom

GREY = np.zeros((20, 20), np.uint8)


def write(path, uid: str | None = "1.2", patient: str = "p1", **more: object):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_dicom(GREY, **({"StudyInstanceUID": uid} if uid else {}), PatientID=patient, **more))
    return path


def studies(folder) -> dict[str, str]:
    return {item.name: item.study for item in find_pictures(folder)}


def test_a_flat_folder_of_several_patients_is_separated(tmp_path):
    for number, (uid, patient) in enumerate((("1.2", "a"), ("1.3", "b"), ("1.2", "a"), ("1.4", "b"), (None, "b"))):
        write(tmp_path / f"IM{number:04}", uid, patient)
    (tmp_path / "x.png").write_bytes(b"?")
    found = ["1.2", "1.3", "1.2", "1.4", ".", "."]
    assert studies(tmp_path) == dict(zip([*(f"IM{n:04}" for n in range(5)), "x.png"], found))


def test_a_single_study_keeps_the_name_of_its_folder_and_folders_are_not_merged(tmp_path):
    for name in ("a/1.dcm", "a/2.dcm", "b/1.dcm"):
        write(tmp_path / name)
    assert studies(tmp_path) == {"a/1.dcm": "a", "a/2.dcm": "a", "b/1.dcm": "b"}


def test_patients_that_share_a_uid_are_separated_but_not_named(tmp_path):
    write(tmp_path / "s/1.dcm", patient="Jane")
    write(tmp_path / "s/2.dcm", patient="John")
    assert list(studies(tmp_path).values()) == ["s/1.2 (1)", "s/1.2 (2)"]


@pytest.mark.parametrize("data", [b"", b"text", bytes(128) + b"DICM" + b"words " * 9, encode_dicom(GREY)])
def test_a_file_without_a_study_uid_has_no_study(tmp_path, data):
    (tmp_path / "a.dcm").write_bytes(data)
    assert read_study(tmp_path / "a.dcm") is None


def test_a_view_without_a_patient_stays_with_its_study(tmp_path):
    for name, uid, patient in (("a", "1.2", "ada"), ("b", "1.2", ""), ("c", "1.3", "bob")):
        write(tmp_path / name, uid, patient)
    assert studies(tmp_path) == {"a": "1.2", "b": "1.2", "c": "1.3"}
