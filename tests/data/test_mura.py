"""A MURA tree becomes one row per image; what contradicts MURA's form is an error that names it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from muralab.data.mura import COLUMNS, find_root, parts_of, read_index, read_tree
from muralab.errors import DataError
from tests.fixtures.payloads import encode_dicom


@pytest.fixture
def tree(tmp_path, write_tree) -> Path:
    return write_tree(tmp_path, parts=("wrist",), n_train=4, n_valid=2)


def test_the_root_is_found_from_the_tree_and_from_its_parent(tiny_tree):
    assert find_root(tiny_tree) == find_root(tiny_tree.parent) == tiny_tree


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist\. Give the MURA-v1\.1 folder"):
        find_root(tmp_path / "nowhere")


def test_a_folder_without_a_tree_names_what_was_searched(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"Looked for train/XR_\*/ .*The folder holds: notes\.txt"):
        find_root(tmp_path)


def test_parts_are_read_from_the_folders(tiny_tree):
    assert parts_of(tiny_tree) == ["hand", "wrist"]


def test_the_index_has_one_sorted_row_per_image(tiny_tree):
    index = read_index(tiny_tree, "wrist")
    assert tuple(index.columns) == COLUMNS
    assert index["image"].is_monotonic_increasing
    assert index["image"].is_unique
    assert all(Path(path).is_file() for path in index["path"])


def test_a_row_contains_the_components_of_its_path(tiny_tree):
    row = read_index(tiny_tree, "wrist").iloc[0]
    assert row["image"] == "train/XR_WRIST/patient00017/study1_positive/image1.png"
    assert row["study"] == "train/XR_WRIST/patient00017/study1_positive"
    assert (row["split"], row["part"], row["patient"], row["label"]) == ("train", "wrist", "patient00017", 1)


def test_part_all_combines_every_part(tiny_tree):
    together = len(read_index(tiny_tree, "all"))
    assert together == len(read_index(tiny_tree, "hand")) + len(read_index(tiny_tree, "wrist"))


def test_file_names_that_are_not_utf8_are_listed(tree):
    for file in tree.glob("*.csv"):
        file.unlink()
    study = next((tree / "train" / "XR_WRIST").glob("*/*"))
    (study / os.fsdecode(b"im\xe4ge.png")).touch()
    with pytest.raises(DataError, match=r"1 files in .* not UTF-8; rename them:\n.*im.udce4ge\.png"):
        read_index(tree, "wrist")


def test_a_tree_in_a_folder_that_is_not_utf8_is_rejected(tree, tmp_path):
    root = tree.rename(tmp_path / os.fsdecode(b"r\xe9seau"))
    with pytest.raises(DataError, match=r"r.udce9seau' is in a folder whose name is not UTF-8"):
        read_index(root, "wrist")


def test_a_list_may_name_files_in_a_folder_called_train(tree, tmp_path):
    expected = read_index(tree, "wrist")
    lines = (tree / "train_image_paths.csv").read_text().split()
    (tree / "train_image_paths.csv").write_text("".join(f"/data/train/{line}\n" for line in lines))
    assert read_index(tree, "wrist").equals(expected)


def test_a_tree_without_lists_gives_the_same_table(tmp_path, tree):
    with_lists = read_index(tree, "wrist")
    for file in tree.glob("*.csv"):
        file.unlink()
    assert read_index(tree, "wrist").equals(with_lists)


def test_hidden_files_are_not_images(tmp_path, write_tree):
    root = write_tree(tmp_path, lists=False)
    assert any(root.rglob("._image1.png"))
    assert not read_index(root, "all")["image"].str.contains(r"/\.").any()


def test_an_unknown_part_lists_the_known_parts(tiny_tree):
    with pytest.raises(DataError, match=r"no part 'elbow'\. It has: hand, wrist"):
        read_index(tiny_tree, "elbow")


def test_missing_files_of_a_list_are_counted_and_the_first_twenty_named(tree):
    lines = [f"MURA-v1.1/train/XR_WRIST/patient9/study1_positive/image{i}.png" for i in range(30)]
    (tree / "train_image_paths.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"(?s)names 30 files that are missing.* 20\. .*and 10 more"):
        read_index(tree, "wrist")


def test_a_study_listed_with_two_labels_is_rejected(tree):
    with (tree / "train_labeled_studies.csv").open("a") as file:
        file.write("MURA-v1.1/train/XR_WRIST/patient00001/study1_positive/,0\n")
    with pytest.raises(DataError, match=r"1 studies two conflicting labels:\n  1\. train/XR_WRIST/patient00001"):
        read_index(tree, "wrist")


def test_a_list_that_contradicts_the_folder_is_rejected(tree):
    file = tree / "valid_labeled_studies.csv"
    file.write_text(file.read_text().replace("positive/,1", "positive/,0"))
    with pytest.raises(DataError, match="0 in the list, 1 by the folder's name"):
        read_index(tree, "wrist")


def test_a_list_labels_folders_without_a_suffix(tree):
    source, target = "train/XR_WRIST/patient00001/study1_positive", "train/XR_WRIST/patient00001/study1"
    shutil.move(tree / source, tree / target)
    for file in tree.glob("train_*.csv"):
        file.write_text(file.read_text().replace(source, target))
    index = read_index(tree, "wrist")
    assert index.loc[index["study"] == target, "label"].unique() == [1]


def test_a_study_without_a_label_is_rejected(tree):
    shutil.move(tree / "train/XR_WRIST/patient00001/study1_positive", tree / "train/XR_WRIST/patient00001/study1")
    for file in tree.glob("*.csv"):
        file.unlink()
    with pytest.raises(DataError, match=r"1 studies .* have no label"):
        read_index(tree, "wrist")


@pytest.mark.parametrize(
    "line", ["image1.png", "MURA-v1.1/train/XR_WRIST/../../../etc/passwd", "train/WRIST/a/b/c.png"]
)
def test_a_list_line_that_is_not_an_image_path_is_quoted(tree, line):
    (tree / "train_image_paths.csv").write_text(line)
    with pytest.raises(DataError, match=r"train_image_paths\.csv, line 1: expected a path such as MURA-v1\.1/train"):
        read_index(tree, "wrist")


def test_an_empty_tree_is_an_error_that_names_the_expected_files(tmp_path):
    (tmp_path / "train" / "XR_WRIST").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no images of part 'wrist' .*XR_WRIST/patient00001"):
        read_index(tmp_path, "wrist")


def notes_of(tree: Path) -> str:
    return "\n".join(read_tree(tree, "wrist").notes)


def remove_lists(tree: Path) -> None:
    for file in tree.glob("*.csv"):
        file.unlink()


def first_study(tree: Path) -> Path:
    return next(iter(sorted((tree / "train" / "XR_WRIST").glob("*/*"))))


def test_an_image_may_have_any_name_and_anything_else_is_counted(tree):
    remove_lists(tree)
    study = first_study(tree)
    image = sorted(study.glob("image*.png"))[0]
    image.rename(study / "IM000001")
    (study / "notes.pdf").write_bytes(b"%PDF-1.4")
    name = f"{study.relative_to(tree).as_posix()}"
    found = read_tree(tree, "wrist")
    assert f"{name}/IM000001" in set(found.table["image"])
    assert "1 not a picture (PDF)" in notes_of(tree)
    assert f"{name}/notes.pdf: not a picture (PDF)" in notes_of(tree)


def test_a_picture_below_its_studys_folder_is_a_view_of_that_study(tree):
    expected = read_index(tree, "wrist")
    remove_lists(tree)
    study = first_study(tree)
    (study / "raw").mkdir()
    image = sorted(study.glob("image*.png"))[0]
    image.rename(study / "raw" / image.name)
    found = read_index(tree, "wrist")
    assert sorted(found["study"]) == sorted(expected["study"])
    assert "1 pictures lie in folders below their study's, and count as its views:" in notes_of(tree)


@pytest.mark.parametrize("place", ["train/XR_WRIST/patient00001", "train/XR_WRIST", "train/extra/deep"])
def test_a_picture_outside_of_a_studys_folder_is_counted(tree, place):
    remove_lists(tree)
    (tree / place).mkdir(exist_ok=True, parents=True)
    shutil.copy(sorted(first_study(tree).glob("image*.png"))[0], tree / place / "stray.png")
    assert f"{place}/stray.png: picture outside of a " in notes_of(tree)
    assert not read_index(tree, "wrist")["image"].str.contains("stray").any()


def test_a_list_older_than_its_folders_says_what_it_does_not_name(tree):
    image = sorted(first_study(tree).glob("image*.png"))[0]
    shutil.copy(image, image.with_name("added.png"))
    assert not read_index(tree, "wrist")["image"].str.contains("added").any()
    assert "train_image_paths.csv does not name 1 pictures that are in its folders" in notes_of(tree)
    assert image.with_name("added.png").relative_to(tree).as_posix() in notes_of(tree)
    assert "not named in" not in notes_of(tree)  # said once


@pytest.mark.parametrize("lists", [True, False])
def test_a_heat_map_is_never_a_view(tmp_path, write_tree, lists):
    root = write_tree(tmp_path, parts=("wrist",), n_train=2, n_valid=2, lists=lists)
    expected = list(read_index(root, "wrist")["image"])
    heat = first_study(root) / "image1.heat.png"
    shutil.copy(first_study(root) / "image1.png", heat)
    if lists:
        with (root / "train_image_paths.csv").open("a") as file:
            file.write(f"{root.name}/{heat.relative_to(root).as_posix()}\n")
    assert list(read_index(root, "wrist")["image"]) == expected
    assert "1 heat map of another file" in notes_of(root)


def test_an_object_without_pixels_is_no_view(tree):
    remove_lists(tree)
    expected = list(read_index(tree, "wrist")["image"])
    data = encode_dicom(np.zeros((20, 20), np.uint8), PixelData=None, Rows=None, Modality="PR")
    (first_study(tree) / "PR1.dcm").write_bytes(data)
    assert list(read_index(tree, "wrist")["image"]) == expected
    assert "1 presentation state (PR)" in notes_of(tree)


def test_a_damaged_image_stays_in_the_table_for_the_audit_to_name(tree):
    remove_lists(tree)
    image = sorted(first_study(tree).glob("image*.png"))[0]
    image.write_bytes(b"words")
    assert image.relative_to(tree).as_posix() in set(read_index(tree, "wrist")["image"])


def test_a_folder_that_cannot_be_listed_is_an_error(tree, monkeypatch):
    remove_lists(tree)
    locked, list_folder = first_study(tree), os.scandir

    def refuse(path):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=rf"1 folders cannot be listed; give access to them:\n  1\. {locked}"):
        read_index(tree, "wrist")
