"""A manifest from a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from muralab.data.labels import read_labels
from muralab.data.manifest_builder import Draft, build_manifest
from muralab.data.scan import scan_folder
from muralab.errors import DataError
from tests.fixtures.payloads import encode, encode_dicom


def dicom(number: int, study: str = "1.2", patient: str = "p1", **more: object) -> bytes:
    grey = np.random.default_rng(number).integers(0, 256, (20, 20), dtype=np.uint8)
    own = {"StudyInstanceUID": study, "PatientID": patient, "SOPInstanceUID": f"1.9.{number}"}
    return encode_dicom(grey, **{**own, **more})


def build(folder: Path, files: dict[str, bytes], labels: str = "", **options: object) -> Draft:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    table = None
    if labels:
        (folder.parent / "labels.csv").write_text(labels)
        table = read_labels(folder.parent / "labels.csv")
    fields = {"folder": folder, "base": folder, "labels": table}
    return build_manifest(scan_folder(folder), **{**fields, **options})


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "export"


def test_a_row_holds_what_the_header_says(folder):
    more = {"BodyPartExamined": "HAND", "ViewPosition": "PA", "PatientAge": "045Y", "Manufacturer": "Agfa"}
    table = build(folder, {"PA1/ST1/SE1/IM1": dicom(1, **more)}, "study,label\n1.2,1\n").table
    assert table.to_dict("records") == [
        {
            "image": "PA1/ST1/SE1/IM1",
            "label": 1,
            "patient": "p1",
            "study": "1.2",
            "part": "hand",
            "view": "PA",
            "device": "Agfa",
            "age": "45",
        }
    ]


def test_images_are_relative_to_the_manifest_or_absolute_outside_of_its_folder(folder, tmp_path):
    files = {"IM1": dicom(1)}
    assert list(build(folder, files, base=tmp_path).table["image"]) == ["export/IM1"]
    assert list(build(folder, files, base=tmp_path / "other").table["image"]) == [f"{folder}/IM1"]


def test_pictures_without_a_label_are_left_out_and_labels_without_a_picture_are_named(folder):
    draft = build(folder, {"IM1": dicom(1), "IM2": dicom(2, "1.3")}, "study,label\n1.2,1\n7.7,0\n")
    assert list(draft.table["image"]) == ["IM1"]
    assert [(one.name, one.reason) for one in draft.unused] == [("IM2", "no label in labels.csv")]
    assert any("1 labels of labels.csv belong to no picture:\n  1. study 7.7" in note for note in draft.notes)


def test_without_a_table_the_labels_are_left_empty(folder):
    assert build(folder, {"IM1": dicom(1)}).table["label"].isna().all()


def test_an_empty_study_uid_is_patient_date_and_accession_number(folder):
    files = {f"IM{n}": dicom(n, "", f"p{n}", StudyDate="20200101", AccessionNumber="A1") for n in (1, 2)}
    table = build(folder, files).table
    assert list(table["study"]) == ["p1 20200101 A1", "p2 20200101 A1"]


def test_a_copy_counts_once(folder):
    draft = build(folder, {"IM1": dicom(1), "copy/IM1": dicom(1)})
    assert len(draft.table) == 1
    assert draft.unused[0].text == "copy of another picture (IM1)"


def test_a_study_without_a_patient_is_a_patient_of_its_own_with_a_note(folder):
    draft = build(folder, {"IM1": dicom(1, "1.2", ""), "IM2": dicom(2, "1.3", "")})
    assert list(draft.table["patient"]) == ["1.2", "1.3"]
    assert any(note.startswith("2 pictures have no patient in a header") for note in draft.notes)


def test_pictures_without_headers_are_described_by_their_folders(folder):
    grey = np.random.default_rng(0).integers(0, 256, (2, 20, 20), dtype=np.uint8)
    names = ("XR_HAND/patient00001/study1_positive/1.png", "ward/7/1.png")
    table = build(folder, dict(zip(names, map(encode, grey)))).table.set_index("image")
    assert table.loc[names[0], ["patient", "part"]].tolist() == ["patient00001", "hand"]
    assert table.loc[names[0], "study"] == "XR_HAND/patient00001/study1_positive"
    assert table.loc[names[1], ["patient", "study", "part"]].tolist() == ["ward/7", "ward/7", "unknown"]


def test_a_part_may_be_given_where_no_header_names_one(folder):
    files = {"IM1": dicom(1), "IM2": dicom(2, BodyPartExamined="HAND"), "IM3": dicom(3, ProtocolName="wrist pa")}
    draft = build(folder, files, part="elbow")
    assert list(draft.table["part"]) == ["elbow", "hand", "wrist"]
    assert any(note.startswith("1 pictures have no BodyPartExamined: their part is from") for note in draft.notes)


def test_two_labels_of_one_study_are_refused(folder):
    files = {"IM1": dicom(1, AccessionNumber="A1"), "IM2": dicom(2, AccessionNumber="A2")}
    with pytest.raises(DataError, match=r"1 studies have pictures with different labels:\n  1\. study 1\.2"):
        build(folder, files, "accession,label\nA1,1\nA2,0\n")


def test_a_folder_without_pictures_is_refused(folder):
    with pytest.raises(DataError, match="holds no picture; it holds 1 other files"):
        build(folder, {"notes.txt": b"words"})
