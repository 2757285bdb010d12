"""Digests of files: of their content whatever they are called, and read once for as long as they are unchanged."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from muralab.data import digests as module
from muralab.data.digests import FileDigests

NAMES = ("a.dcm", "b.dcm", "c.dcm")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files of one size and one modification time."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name[0].encode() * 100)
        os.utime(folder / name, ns=(10**18, 10**18))
    return folder


def table(root: Path) -> pd.DataFrame:
    return pd.DataFrame({"image": list(NAMES), "path": [str(root / name) for name in NAMES]})


def known(root: Path, memory: Path) -> FileDigests:
    """The digests of a folder, each read or remembered."""
    found = FileDigests(table(root), memory)
    found.read()
    return found


def key(root: Path, memory: Path) -> str | None:
    return known(root, memory).key(table(root))


def test_a_digest_is_that_of_the_bytes(root: Path, tmp_path: Path) -> None:
    expected = [hashlib.blake2b((root / name).read_bytes(), digest_size=16).hexdigest() for name in NAMES]
    assert known(root, tmp_path).of(table(root)) == expected


def test_known_files_are_not_read_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = key(root, tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert FileDigests(table(root), tmp_path).key(table(root)) == first


def test_the_key_does_not_depend_on_the_order_of_the_rows(root: Path, tmp_path: Path) -> None:
    assert known(root, tmp_path).key(table(root)[::-1]) == key(root, tmp_path)


def test_files_that_were_swapped_by_renaming_have_another_key(root: Path, tmp_path: Path) -> None:
    before = key(root, tmp_path)
    for old, new in (("a.dcm", "x"), ("b.dcm", "a.dcm"), ("x", "b.dcm")):
        (root / old).rename(root / new)
    after = known(root, tmp_path)
    assert after.key(table(root)) != before
    assert after.of(table(root))[0] == hashlib.blake2b(b"b" * 100, digest_size=16).hexdigest()


def test_a_file_with_the_old_size_and_time_has_another_key(root: Path, tmp_path: Path) -> None:
    before = key(root, tmp_path)
    (root / "a.dcm").write_bytes(b"z" * 100)
    os.utime(root / "a.dcm", ns=(10**18, 10**18))
    assert key(root, tmp_path) != before


def test_a_new_time_alone_changes_nothing(root: Path, tmp_path: Path) -> None:
    before = key(root, tmp_path)
    (root / "a.dcm").touch()
    assert key(root, tmp_path) == before


def test_a_moved_tree_is_known_at_once(root: Path, tmp_path: Path) -> None:
    before = key(root, tmp_path)
    moved = root.rename(tmp_path / "moved")
    assert FileDigests(table(moved), tmp_path).key(table(moved)) == before


def test_a_copied_tree_has_the_same_key_and_both_are_remembered(root: Path, tmp_path: Path) -> None:
    before = key(root, tmp_path)
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    assert key(copy, tmp_path) == before
    assert not FileDigests(table(copy), tmp_path).unknown
    assert not FileDigests(table(root), tmp_path).unknown


def test_the_memory_does_not_grow_with_every_copy(root: Path, tmp_path: Path) -> None:
    for number in range(2 * module.TREES):
        key(Path(shutil.copytree(root, tmp_path / str(number))), tmp_path)
    (file,) = tmp_path.glob("digests-*.npy")
    assert len(module._read(file)) == module.TREES * len(NAMES)


def test_a_missing_file_needs_no_reading_and_changes_the_key(root: Path, tmp_path: Path) -> None:
    before = key(root, tmp_path)
    (root / "a.dcm").unlink()
    found = FileDigests(table(root), tmp_path)
    assert found.unknown == []
    assert found.key(table(root)) not in (None, before)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(root: Path, tmp_path: Path) -> None:
    found = FileDigests(table(root), tmp_path)
    (root / "a.dcm").write_bytes(b"other")
    found.read()
    assert FileDigests(table(root), tmp_path).unknown == [str(root / "a.dcm")]


def test_a_file_that_might_change_within_the_same_tick_is_not_remembered(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    monkeypatch.setattr(module, "TICK_NS", 10**12)
    known(root, tmp_path)
    assert len(FileDigests(table(root), tmp_path).unknown) == len(NAMES)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY damaged"])
def test_a_damaged_memory_is_ignored(root: Path, tmp_path: Path, content: bytes) -> None:
    before = key(root, tmp_path)
    (file,) = tmp_path.glob("digests-*.npy")
    file.write_bytes(content)
    assert key(root, tmp_path) == before
