"""A command's temporary folder: used by everything in it, removed at its end or after its death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from muralab import scratch
from muralab.errors import SettingsError
from muralab.scratch import LOCK, find_stale, scratch_folder, short_folder
from tests.processes import environment


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "SHORT_ROOTS", ())
    return tmp_path


def test_everything_temporary_lies_in_it_and_is_removed(root: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == root
        assert Path(tempfile.mkdtemp()).parent == folder
        assert os.environ["TMPDIR"] == str(folder)
        assert find_stale(root) == []
    assert list(root.iterdir()) == []
    assert tempfile.gettempdir() == str(root)


def test_the_next_command_removes_what_a_killed_one_left(root: Path) -> None:
    code = "from muralab.scratch import scratch_folder\nimport os, tempfile\n"
    code += f"tempfile.tempdir = {str(root)!r}\nwith scratch_folder(): os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(find_stale(root)) == 1
    with scratch_folder() as folder:
        assert list(root.iterdir()) == [folder]


def test_without_locks_no_locked_folder_counts_as_left(root: Path, break_locks: Callable[..., None]) -> None:
    break_locks()
    with scratch_folder() as folder:
        assert (folder / LOCK).exists()
        assert find_stale(root) == []
    assert list(root.iterdir()) == []


def test_folders_of_others_and_fresh_ones_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = root / "muralab-fresh"
    fresh.mkdir()
    (root / "other").mkdir()
    assert find_stale(root) == []
    monkeypatch.setattr(scratch, "FRESH_S", -1.0)
    assert find_stale(root) == [fresh]


def test_a_short_folder_is_found_beside_a_long_one(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s-") as short:
        monkeypatch.setattr(tempfile, "tempdir", str(root / ("deep" * 30)))
        monkeypatch.setattr(scratch, "SHORT_ROOTS", (short,))
        assert str(short_folder(64).parent) == short


def test_no_short_folder_is_an_error_with_the_fix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / ("deep" * 30)))
    with pytest.raises(SettingsError, match=r"a temporary folder whose path has at most 26 characters.*Set TMPDIR="):
        short_folder(64)


def test_no_temporary_folder_is_an_error_with_the_fix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "absent"))
    with pytest.raises(SettingsError, match=r"cannot be written \(No such file or directory\)\. Set TMPDIR="):
        scratch_folder().__enter__()
