"""Which files are images, and which study they belong to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from muralab.errors import DataError, SettingsError
from muralab.predict.item import Item
from muralab.predict.pictures import build_batches, find_pictures
from tests.fixtures.payloads import encode_dicom

PNG = b"\x89PNG"


def items(*studies: str, n_bytes: int = 10) -> list[Item]:
    return [Item(path=Path(s), name=f"{s}/{n}", study=s, n_bytes=n_bytes) for n, s in enumerate(studies)]


def names(folder: Path, **options: str) -> list[str]:
    return [item.name for item in find_pictures(folder, **options).items]


def test_images_are_found_by_content_or_reported_as_damaged_by_suffix(tmp_path):
    for name in ("b/2.scan", "b/1.dcm", "notes.txt", ".hidden.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"words" if name in ("notes.txt", "b/1.dcm") else PNG)
    found = find_pictures(tmp_path)
    assert [item.name for item in found.items] == ["b/1.dcm", "b/2.scan"]
    assert {one.name: one.reason for one in found.unused} == {
        ".git": "hidden",
        ".hidden.png": "hidden",
        "notes.txt": "not a picture (text)",
    }


def test_linked_studies_are_found_once_and_a_link_to_a_parent_is_not_followed(tmp_path):
    (tmp_path / "kept" / "s1").mkdir(parents=True)
    (tmp_path / "kept" / "s1" / "1.png").write_bytes(b"?")
    requested = tmp_path / "requested"
    requested.mkdir()
    (requested / "linked").symlink_to(tmp_path / "kept")
    (tmp_path / "kept" / "s1" / "back").symlink_to(requested)
    assert names(requested) == ["linked/s1/1.png"]


def test_two_links_to_one_study_find_it_once_by_its_own_name(tmp_path):
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "1.png").write_bytes(b"?")
    for name in ("latest", "s1 again"):
        (tmp_path / name).symlink_to(tmp_path / "s1")
    assert names(tmp_path) == ["s1/1.png"]


@pytest.fixture
def locked(monkeypatch, tmp_path) -> Path:
    """An unreadable folder, for any user who runs the tests."""
    folder, list_folder = tmp_path / "ward" / "locked", os.scandir
    folder.mkdir(parents=True)

    def refuse(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return folder


def test_an_unreadable_folder_is_a_study_of_its_own(locked):
    (locked.parent / "1.png").write_bytes(b"?")
    found = find_pictures(locked.parents[1]).items
    assert [(item.name, item.study) for item in found] == [("ward/1.png", "ward"), ("ward/locked/", "ward/locked")]


def test_files_that_cannot_be_inspected_are_listed(monkeypatch, tmp_path):
    (tmp_path / "s" / "sub").mkdir(parents=True)
    for name in ("1.png", "2"):
        (tmp_path / "s" / name).write_bytes(b"?")
    stat = Path.stat

    def refuse(path, **more):
        if path.parent.name == "s":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", refuse)
    assert names(tmp_path) == ["s/1.png"]


def test_a_named_pipe_is_skipped(tmp_path):
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "1.png").write_bytes(b"?")
    assert names(tmp_path) == ["1.png"]
    with pytest.raises(DataError, match="holds no image"):
        find_pictures(tmp_path / "pipe")


def test_bytes_that_are_not_utf8_are_escaped_in_names(tmp_path):
    file = tmp_path / os.fsdecode(b"st\xff") / os.fsdecode(b"\xfe.png")
    file.parent.mkdir()
    file.write_bytes(b"?")
    (item,) = find_pictures(tmp_path).items
    assert (item.name, item.study) == ("st\\xff/\\xfe.png", "st\\xff")
    assert item.path.read_bytes() == b"?"


def test_a_single_file_may_have_any_name(tmp_path):
    (tmp_path / "scan.bin").write_bytes(b"?")
    assert [(i.name, i.study) for i in find_pictures(tmp_path / "scan.bin").items] == [("scan.bin", ".")]


def test_study_file_makes_each_image_a_study(tiny_tree):
    found = find_pictures(tiny_tree / "valid", study="file").items
    assert len({item.study for item in found}) == len(found) > 8


@pytest.mark.parametrize(
    ("folder", "study", "error", "message"),
    [
        ("nowhere", "auto", DataError, "nowhere does not exist"),
        (
            ".",
            "auto",
            DataError,
            r"holds no image. Searched all subfolders for PNG, JPEG, TIFF, BMP, DICOM files, by content",
        ),
        (".", "patient", SettingsError, "study=patient: expected auto or folder or file"),
    ],
)
def test_an_invalid_request_is_refused(tmp_path, folder, study, error, message):
    with pytest.raises(error, match=message):
        find_pictures(tmp_path / folder, study=study)


def test_batches_hold_whole_studies():
    batches = build_batches(items("a", "a", "b", "b", "b", "c"), rows=4)
    assert [[item.study for item in batch] for batch in batches] == [["a", "a"], ["b", "b", "b", "c"]]


def test_a_study_larger_than_a_batch_goes_alone():
    assert [len(b) for b in build_batches(items(*"aabbbb"), rows=3)] == [2, 4]


def test_large_files_make_small_batches():
    assert [len(b) for b in build_batches(items(*"abc", n_bytes=20 * 2**20), rows=16)] == [1, 1, 1]


def test_the_same_object_in_two_folders_is_one_view_of_its_study(tmp_path):
    grey = np.zeros((20, 20), np.uint8)
    data = encode_dicom(grey, StudyInstanceUID="1.2", PatientID="a", SOPInstanceUID="1.2.3")
    for name in ("export/IM1", "backup/IM1"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    found = find_pictures(tmp_path)
    assert [item.name for item in found.items] == ["backup/IM1"]
    assert [(one.name, one.text) for one in found.unused] == [("export/IM1", "copy of another picture (backup/IM1)")]


def test_equal_files_without_an_identifier_all_get_an_answer(tmp_path):
    for name in ("s1/1.png", "s1/2.png", "s2/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    assert names(tmp_path) == ["s1/1.png", "s1/2.png", "s2/1.png"]


def test_the_folder_of_one_study_of_a_mura_tree_is_a_study(tiny_tree):
    folder = next(path for path in (tiny_tree / "train/XR_HAND").glob("*/*") if len(list(path.glob("i*.png"))) > 1)
    assert {item.study for item in find_pictures(folder).items} == {"."}


def test_pictures_in_one_flat_folder_are_refused_with_the_ways_to_say_what_is_meant(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    with pytest.raises(DataError, match=r"2 pictures lie directly in .*study=file if each .*study=folder if they"):
        find_pictures(tmp_path)
    assert {item.study for item in find_pictures(tmp_path, study="folder").items} == {"."}
    assert {item.study for item in find_pictures(tmp_path, study="file").items} == {"a.png", "b.png"}
