"""Copies of training images in the test set: counted by default, left out with their patients on request."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from muralab.data.dataset import Dataset, find_dataset, open_dataset
from muralab.errors import DataError
from muralab.results.duplicates import handle_duplicates


@pytest.fixture
def tree(tmp_path: Path, write_tree) -> Path:
    return write_tree(tmp_path, parts=("wrist",), n_train=24, n_valid=8)


def read(tree: Path) -> Dataset:
    source = find_dataset(str(tree), "wrist", protocol="valid-as-test", seed=0)
    folder = tree.parent / "cache"
    return open_dataset(source, image_sizes=[32], cache_folder=folder, progress=lambda _: lambda *_: None)


def copy(tree: Path, name: str, *, brighter: int = 0) -> str:
    """Replace a test image with a copy of one of another set; returns its patient."""
    tables = read(tree).tables
    source, target = Path(tables[name]["path"].iloc[0]), Path(tables["test"]["path"].iloc[0])
    shutil.copyfile(source, target)
    if brighter:
        pixels = np.asarray(Image.open(source).convert("L")).astype(int) + brighter
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target)
    return str(tables["test"]["patient"].iloc[0])


def test_without_copies_nothing_changes(tree):
    dataset = read(tree)
    assert handle_duplicates(dataset, "drop") is dataset


@pytest.mark.parametrize(("name", "brighter"), [("train", 0), ("validation", 0), ("train", 5)])
def test_by_default_copies_are_counted_and_kept(tree, name, brighter):
    copy(tree, name, brighter=brighter)
    before, after = read(tree), handle_duplicates(read(tree), "keep")
    assert after.splits.fingerprint == before.splits.fingerprint
    assert len(after.tables["test"]) == len(before.tables["test"])
    *_, note = after.notes
    assert note.startswith("1 of 8 test patients (")
    assert f"near-duplicate of one in {name}." in note
    assert "duplicates=drop leaves these patients out" in note


def test_on_request_their_patients_are_left_out_of_the_test_set(tree):
    patient = copy(tree, "train")
    before, after = read(tree), handle_duplicates(read(tree), "drop")
    assert set(before.tables["test"]["patient"]) - set(after.tables["test"]["patient"]) == {patient}
    for name in ("train", "validation"):
        assert after.tables[name].equals(before.tables[name])
        assert after.digest(name) == before.digest(name)
    assert after.digest("test") != before.digest("test")
    assert after.splits.fingerprint != before.splits.fingerprint
    assert "left out of the test set" in after.notes[-1]


def test_the_same_copies_give_the_same_split(tree):
    copy(tree, "train")
    one, other = (handle_duplicates(read(tree), "drop") for _ in range(2))
    assert (one.splits.fingerprint, one.digest("test")) == (other.splits.fingerprint, other.digest("test"))


def test_a_test_set_that_would_lose_a_class_is_refused(tree):
    tables = read(tree).tables
    normal = tables["test"][tables["test"]["label"] == 0]
    for source, target in zip(tables["train"]["path"], normal["path"]):
        shutil.copyfile(source, target)
    with pytest.raises(
        DataError, match=r"^duplicates=drop: \d of 8 test patients .* test split has no normal .* duplicates=keep"
    ):
        handle_duplicates(read(tree), "drop")
