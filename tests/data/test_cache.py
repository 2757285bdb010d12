from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.data import cache as cache_module
from muralab.data.cache import PixelCache, open_cache
from muralab.data.files import read_square
from muralab.data.mura import read_index
from muralab.errors import DataError, SettingsError

SIZE = 24
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def table(tmp_path, write_tree) -> pd.DataFrame:
    return read_index(write_tree(tmp_path, parts=("wrist",), n_train=4, n_valid=2), "wrist")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def _open_and_count(table: pd.DataFrame, folder: Path, queue) -> None:
    built: list[int] = []

    def dawdle(done: int, total: int) -> None:
        built.append(done)
        time.sleep(1)  # so that the other process comes while this one builds

    cache = open_cache(table, size=SIZE, folder=folder, progress=dawdle)
    queue.put((bool(built), int(cache.images.sum())))


def _build_and_hang(table: pd.DataFrame, folder: Path) -> None:
    open_cache(table, size=SIZE, folder=folder, workers=1, progress=lambda done, total: time.sleep(600))


def test_rows_are_the_squares_of_the_one_preprocessing(table, folder):
    cache = open_cache(table, size=SIZE, folder=folder)
    for row, path in zip(cache.rows(table), table["path"]):
        np.testing.assert_array_equal(cache.images[row], read_square(path, SIZE))


def test_rows_follow_the_table_that_asks(table, folder):
    cache = open_cache(table.sample(frac=1, random_state=0), size=SIZE, folder=folder)
    assert cache.rows(table[::-1]).tolist() == cache.rows(table)[::-1].tolist()


def test_unknown_image_is_named(table, folder):
    cache = open_cache(table[:-1], size=SIZE, folder=folder)
    with pytest.raises(DataError, match=r"(?s)1 images are not in the cache.*" + table["image"].iloc[-1]):
        cache.rows(table)


def test_second_opening_builds_nothing(table, folder, monkeypatch):
    open_cache(table, size=SIZE, folder=folder)
    monkeypatch.setattr(cache_module, "_build", None)
    assert open_cache(table, size=SIZE, folder=folder).images.shape == (len(table), SIZE, SIZE)


def test_pixels_are_mapped_read_only(table, folder):
    cache = open_cache(table, size=SIZE, folder=folder)
    assert isinstance(cache.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0] = 1


def test_changed_file_is_a_new_cache_and_the_old_one_goes(table, folder):
    before = open_cache(table, size=SIZE, folder=folder)
    Path(table["path"][0]).write_bytes(Path(table["path"][1]).read_bytes())
    after = open_cache(table, size=SIZE, folder=folder)
    np.testing.assert_array_equal(after.images[0], after.images[1])
    assert before.path != after.path
    assert not before.path.exists()


def test_sizes_live_side_by_side(table, folder):
    paths = {open_cache(table, size=size, folder=folder).path for size in (16, 24)}
    assert all(path.exists() for path in paths)
    assert len(paths) == 2


def test_progress_ends_at_the_number_of_images(table, folder):
    seen: list[tuple[int, int]] = []
    open_cache(table, size=SIZE, folder=folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(table), len(table))


def test_unreadable_image_is_named_left_out_and_black(table, folder):
    Path(table["path"][1]).write_bytes(b"no picture")
    cache = open_cache(table, size=SIZE, folder=folder)
    assert cache.unreadable == {table["image"][1]: "not a PNG, JPEG or DICOM file"}
    assert not cache.images[1].any()
    assert cache.readable(table)["image"].tolist() == table["image"].drop(1).tolist()


def test_file_that_vanished_is_unreadable(table, folder):
    Path(table["path"][0]).unlink()
    reason = open_cache(table, size=SIZE, folder=folder).unreadable[table["image"][0]]
    assert "No such file" in reason


def test_cut_short_cache_is_built_again(table, folder):
    path = open_cache(table, size=SIZE, folder=folder).path
    os.truncate(path, path.stat().st_size - 1)
    assert open_cache(table, size=SIZE, folder=folder).images[-1].any()


def test_cache_pickles_as_its_path(table, folder):
    cache = open_cache(table, size=SIZE, folder=folder)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    copy: PixelCache = pickle.loads(data)
    np.testing.assert_array_equal(copy.images, cache.images)


@pytest.mark.slow
def test_two_processes_build_at_once_and_one_does_the_work(table, folder):
    queue = SPAWN.Queue()
    processes = [SPAWN.Process(target=_open_and_count, args=(table, folder, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    built, sums = zip(*(queue.get(timeout=300) for _ in processes))
    assert sorted(built) == [False, True]
    assert len(set(sums)) == 1


@pytest.mark.slow
def test_killed_builder_is_taken_over_and_leaves_nothing(table, folder):
    process = SPAWN.Process(target=_build_and_hang, args=(table, folder))
    process.start()
    deadline = time.monotonic() + 300
    while not list(folder.glob("*.npy.tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert open_cache(table, size=SIZE, folder=folder).images.any()
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".lock", ".npy"]


def test_folder_that_cannot_be_written_is_an_error(table, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"image cache .* cannot be written to .*file/cache: Not a directory"):
        open_cache(table, size=SIZE, folder=tmp_path / "file" / "cache")


def test_full_disk_is_an_error_and_leaves_nothing(table, folder, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device"):
        open_cache(table, size=SIZE, folder=folder)
    assert not list(folder.glob("*.tmp-*"))


def test_works_on_a_file_system_without_locks(table, folder, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *args: (_ for _ in ()).throw(OSError(37, "No locks available")))
    assert open_cache(table, size=SIZE, folder=folder).images.any()


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": 8, "workers": 0}])
def test_impossible_numbers_are_refused(table, folder, bad):
    with pytest.raises(SettingsError, match="must be 1 or more"):
        open_cache(table, folder=folder, **bad)


def test_table_with_a_repeated_image_is_refused(table, folder):
    with pytest.raises(DataError, match="each named once"):
        open_cache(pd.concat([table, table]), size=SIZE, folder=folder)
