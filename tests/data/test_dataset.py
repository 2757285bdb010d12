"""From a folder to a split data set: one pass over the files, what is left out, what the audit finds in our split."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from muralab.data.audit.report import audit_images
from muralab.data.cache import open_cache
from muralab.data.dataset import Dataset, find_dataset, open_dataset, with_sets
from muralab.data.digests import FileDigests
from muralab.data.source import DEMO, DatasetSource
from muralab.demo.dataset import NOTICE_NAME
from muralab.errors import DataError

SIZES = (24, 32)


@pytest.fixture
def tree(tmp_path: Path, write_tree) -> Path:
    return write_tree(tmp_path, parts=("wrist",), n_train=12, n_valid=4)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each image file has been read."""
    counts, read_bytes = Counter[Path](), Path.read_bytes

    def count(path: Path) -> bytes:
        counts[path] += 1
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    return counts


def read(tree: Path, folder: Path, sizes: Sequence[int] = SIZES, seed: int = 0) -> Dataset:
    source = find_dataset(str(tree), "wrist", protocol="valid-as-test", seed=seed)
    return open_dataset(source, image_sizes=sizes, cache_folder=folder, progress=lambda _: lambda *_: None)


def is_result(path: Path) -> bool:
    """Whether a file of the cache holds more than what only a whole data set remembers."""
    return path.is_file() and not path.name.startswith("values-")


def first(tree: Path, patient: int) -> Path:
    return sorted(tree.glob(f"*/*/patient{patient:05d}/*/image1.png"))[0]


def test_every_file_is_read_once_for_all_sizes_and_the_audit(tree, tmp_path, reads):
    dataset = read(tree, tmp_path / "cache")
    assert set(reads.values()) == {1}
    assert len(reads) == len(dataset.index) == dataset.audit.n_images
    assert sorted(dataset.caches) == list(SIZES)


def test_files_are_read_once_although_some_are_unreadable(tree, tmp_path, reads):
    first(tree, 13).write_bytes(b"not an image")
    assert read(tree, tmp_path / "cache").audit.counts["unreadable"] == 1
    assert set(reads.values()) == {1}


def test_a_warm_cache_reads_nothing(tree, tmp_path, reads):
    read(tree, tmp_path / "cache")
    reads.clear()
    read(tree, tmp_path / "cache", sizes=SIZES[:1])
    assert not reads


@pytest.mark.parametrize("more", [{"sizes": (24, 40)}, {"seed": 1}], ids=["size", "split"])
def test_a_new_size_or_split_reads_every_file_once_more(tree, tmp_path, reads, more):
    read(tree, tmp_path / "cache")
    reads.clear()
    read(tree, tmp_path / "cache", **more)
    assert set(reads.values()) == {1}


def test_one_pass_stores_what_separate_passes_store(tree, tmp_path):
    first(tree, 13).write_bytes(b"not an image")
    read(tree, tmp_path / "one")
    source = find_dataset(str(tree), "wrist", protocol="valid-as-test", seed=0)
    caches = [open_cache(source.index, size=size, folder=tmp_path / "many" / "pixels") for size in SIZES]
    unreadable = set(caches[0].unreadable)
    sets = with_sets(source.index, source.split_without(unreadable)[0], unreadable)
    digests = FileDigests(source.index, tmp_path / "many" / "pixels")
    audit_images(sets, folder=tmp_path / "many" / "audit", digests=digests, value_range=None)
    one, many = (
        {
            path.name: path.read_bytes()
            for part in ("pixels", "audit")
            for path in (tmp_path / name / part).rglob("*")
            if is_result(path)
        }
        for name in ("one", "many")
    )
    assert one == many


def test_a_moved_tree_is_not_read_again(tree, tmp_path, reads):
    before = read(tree, tmp_path / "cache")
    reads.clear()
    moved = tree.rename(tree.with_name("MURA-v1.0"))
    after = read(moved, tmp_path / "cache")
    assert not reads
    assert (after.content, after.audit.digests) == (before.content, before.audit.digests)
    assert "old release" in set(after.audit.findings["kind"]) - set(before.audit.findings["kind"])


def test_finding_a_data_set_reads_no_image(tree, reads):
    source = find_dataset(str(tree), "wrist", protocol="valid-as-test", seed=0)
    assert source.n_images == len(list(tree.rglob("[!.]*.png")))
    assert not reads


def test_the_demo_is_not_drawn_to_be_found(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_dataset(DEMO, "wrist", protocol="valid-as-test", seed=0).n_images == 0
    assert not list(tmp_path.iterdir())


def test_a_path_is_opened_from_its_parent_and_known_to_be_synthetic(tree):
    source = DatasetSource(data=str(tree.parent), part="wrist")
    assert (source.root, source.is_synthetic) == (tree, False)
    (tree / NOTICE_NAME).touch()
    assert source.is_synthetic


def test_an_unknown_part_is_named(tree):
    with pytest.raises(DataError, match=r"no part 'elbow'\. It has: wrist"):
        find_dataset(str(tree), "elbow", protocol="valid-as-test", seed=0)


def test_the_audit_covers_our_sets_and_not_the_official_folders(tree, tmp_path):
    dataset = read(tree, tmp_path / "cache")
    assert set(dataset.audit.digests) == {"train", "validation", "test"}
    assert [note.rpartition(": ")[2] for note in dataset.notes] == ["16 hidden."]


@pytest.mark.parametrize(("synthetic", "n_patients"), [(True, 10), (False, 6)])
def test_a_synthetic_tree_holds_out_more_patients_for_validation(tmp_path, write_tree, synthetic, n_patients):
    root = write_tree(tmp_path, parts=("wrist",), n_train=40, n_valid=4)
    if synthetic:
        (root / NOTICE_NAME).touch()
    dataset = read(root, tmp_path / "cache")
    assert dataset.synthetic == synthetic
    assert dataset.tables["validation"]["patient"].nunique() == n_patients


def test_an_image_that_leaks_across_our_split_is_a_note(tree, tmp_path):
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


def test_an_unreadable_image_is_left_out_and_audited_in_its_patients_set(tree, tmp_path):
    broken = first(tree, 13)
    broken.write_bytes(b"not an image")
    dataset = read(tree, tmp_path / "cache")
    assert str(broken) not in set(dataset.tables["test"]["path"])
    assert "unreadable" in set(dataset.audit.findings["kind"])
    assert "leaking patient" not in set(dataset.audit.findings["kind"])
    assert len(dataset.notes) == 2  # the other counts hidden files


def test_an_audit_is_done_once(tree, tmp_path):
    read(tree, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "audit").iterdir()
    os.utime(kept, (0, 0))
    read(tree, tmp_path / "cache")
    assert kept.stat().st_mtime == 0


def test_a_class_that_is_unreadable_is_an_error_that_lists_the_files(tree, tmp_path):
    for path in tree.glob("valid/*/*/*_positive/image*.png"):
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"(?s)test split has no abnormal.* images cannot be decoded and are left out"):
        read(tree, tmp_path / "cache")
