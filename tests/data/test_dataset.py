"""From a folder to a split data set: what is left out, what the audit says of our own split, digests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from muralab.data.dataset import Dataset, open_dataset
from muralab.demo.dataset import NOTICE_NAME
from muralab.errors import DataError


@pytest.fixture
def tree(tmp_path: Path, write_tree) -> Path:
    return write_tree(tmp_path, parts=("wrist",), n_train=12, n_valid=4)


def read(tree: Path, folder: Path, part: str = "wrist") -> Dataset:
    return open_dataset(
        str(tree),
        part,
        protocol="valid-as-test",
        seed=0,
        image_size=32,
        cache_folder=folder,
        progress=lambda _: lambda *_: None,
    )


def first(tree: Path, patient: int) -> Path:
    return sorted(tree.glob(f"*/*/patient{patient:05d}/*/image1.png"))[0]


def test_the_audit_sees_the_sets_and_not_the_official_folders(tree, tmp_path):
    dataset = read(tree, tmp_path / "cache")
    assert set(dataset.audit.digests) == {"train", "validation", "test"}
    assert dataset.audit.n_images == len(dataset.index)
    assert dataset.notes == ()


@pytest.mark.parametrize(("synthetic", "n_patients"), [(True, 10), (False, 6)])
def test_a_synthetic_tree_keeps_more_patients_for_validation(tmp_path, write_tree, synthetic, n_patients):
    root = write_tree(tmp_path, parts=("wrist",), n_train=40, n_valid=4)
    if synthetic:
        (root / NOTICE_NAME).touch()
    dataset = read(root, tmp_path / "cache")
    assert dataset.synthetic == synthetic
    assert dataset.tables["validation"]["patient"].nunique() == n_patients


def test_a_picture_that_leaks_across_our_split_is_a_note(tree, tmp_path):
    dataset = read(tree, tmp_path / "cache")
    source, target = (dataset.tables[name]["path"].iloc[0] for name in ("train", "validation"))
    shutil.copyfile(source, target)
    notes = read(tree, tmp_path / "cache").notes
    assert any(note.startswith("Audit: leaking picture (error), 1 found in 2 images") for note in notes)


def test_the_digest_covers_bytes(tree, tmp_path):
    before = read(tree, tmp_path / "cache")
    path = Path(before.tables["test"]["path"].iloc[0])
    path.write_bytes(path.read_bytes() + b"\0")
    after = read(tree, tmp_path / "cache")
    assert after.splits.fingerprint == before.splits.fingerprint
    assert after.digest("test") != before.digest("test")
    assert after.digest("train") == before.digest("train")


def test_an_unreadable_image_is_left_out_and_counts_to_its_patients_set(tree, tmp_path):
    broken = first(tree, 13)
    broken.write_bytes(b"no picture")
    dataset = read(tree, tmp_path / "cache")
    assert str(broken) not in set(dataset.tables["test"]["path"])
    assert "unreadable" in set(dataset.audit.findings["kind"])
    assert "leaking patient" not in set(dataset.audit.findings["kind"])
    assert len(dataset.notes) == 1


def test_an_audit_is_done_once(tree, tmp_path):
    read(tree, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "audit").iterdir()
    os.utime(kept, (0, 0))
    read(tree, tmp_path / "cache")
    assert kept.stat().st_mtime == 0


def test_a_part_that_the_tree_lacks_is_named(tree, tmp_path):
    with pytest.raises(DataError, match="wrist"):
        read(tree, tmp_path / "cache", part="elbow")
