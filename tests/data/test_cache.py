"""Caches of decoded images: their content, when they are built, and what a crash or a full disk leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.data.cache import PixelCache, open_cache, open_caches
from muralab.data.digests import FileDigests
from muralab.data.files import read_square
from muralab.data.mura import read_index
from muralab.errors import DataError, SettingsError
from tests.fixtures.payloads import encode_dicom

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
        time.sleep(1)  # so that the other process starts while this one builds

    cache = open_cache(table, size=SIZE, folder=folder, progress=dawdle)
    queue.put((bool(built), int(cache.images.sum())))


def _build_and_hang(table: pd.DataFrame, folder: Path) -> None:
    open_cache(table, size=SIZE, folder=folder, workers=1, progress=lambda done, total: time.sleep(600))


def _fail(*args: object) -> None:
    raise AssertionError("This cache should not be built.")


def test_rows_are_the_squares_of_the_preprocessing(table, folder):
    cache = open_cache(table, size=SIZE, folder=folder)
    for row, path in zip(cache.rows(table), table["path"]):
        np.testing.assert_array_equal(cache.images[row], read_square(path, SIZE))


def test_rows_follow_the_order_of_the_given_table(table, folder):
    cache = open_cache(table.sample(frac=1, random_state=0), size=SIZE, folder=folder)
    assert cache.rows(table[::-1]).tolist() == cache.rows(table)[::-1].tolist()


def test_an_unknown_image_is_named(table, folder):
    cache = open_cache(table[:-1], size=SIZE, folder=folder)
    with pytest.raises(DataError, match=r"(?s)1 images are not in the cache.*" + table["image"].iloc[-1]):
        cache.rows(table)


def test_opening_again_builds_nothing(table, folder):
    open_cache(table, size=SIZE, folder=folder)
    again = open_cache(table, size=SIZE, folder=folder, progress=_fail)
    assert again.images.shape == (len(table), SIZE, SIZE)


def test_pixels_are_mapped_read_only(table, folder):
    cache = open_cache(table, size=SIZE, folder=folder)
    assert isinstance(cache.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0] = 1


def test_a_changed_file_gives_a_new_cache_and_removes_the_old_one(table, folder):
    before = open_cache(table, size=SIZE, folder=folder)
    Path(table["path"][0]).write_bytes(Path(table["path"][1]).read_bytes())
    after = open_cache(table, size=SIZE, folder=folder)
    np.testing.assert_array_equal(after.images[0], after.images[1])
    assert before.path != after.path
    assert not before.path.exists()


def test_pictures_swapped_by_renaming_get_their_own_squares(folder, tmp_path):
    names = [f"patient{number}/image1.dcm" for number in range(14)]
    table = pd.DataFrame({"image": names, "path": [str(tmp_path / name) for name in names]})
    for number, path in enumerate(map(Path, table["path"])):
        path.parent.mkdir()
        path.write_bytes(encode_dicom(np.full((SIZE, SIZE), 10 * number, np.uint8), SOPInstanceUID="1.2.3"))
        os.utime(path, (0, 0))
    assert len({Path(path).stat().st_size for path in table["path"]}) == 1
    before = open_cache(table, size=SIZE, folder=folder).images[:, 0, 0].tolist()
    for one, other in zip(table["path"][:7], table["path"][7:]):
        Path(one).rename(tmp_path / "free")
        Path(other).rename(one)
        (tmp_path / "free").rename(other)
    after = open_cache(table, size=SIZE, folder=folder)
    rows = after.rows(table)
    assert after.images[rows, 0, 0].tolist() == [before[row] for row in [*rows[7:], *rows[:7]]]


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_tree_keeps_its_cache(table, folder, tmp_path, monkeypatch, move):
    before = open_cache(table, size=SIZE, folder=folder)
    root = Path(table["path"][0].removesuffix(table["image"][0]))
    moved = Path(move(root, tmp_path / "elsewhere"))
    monkeypatch.setattr("muralab.data.files.decode", _fail)
    again = table.assign(path=[str(moved / image) for image in table["image"]])
    assert open_cache(again, size=SIZE, folder=folder).path == before.path


def test_a_cache_of_known_content_is_opened_without_the_files(table, folder):
    content = FileDigests(table, folder)
    before = open_caches(table, sizes=[SIZE], folder=folder, digests=content)[SIZE]
    Path(table["path"][0]).unlink()
    assert open_cache(table, size=SIZE, folder=folder, content=content.key(table)).path == before.path


def test_files_with_other_content_than_expected_are_an_error(table, folder, tmp_path):
    content = FileDigests(table, folder)
    content.read()
    Path(table["path"][0]).write_bytes(Path(table["path"][1]).read_bytes())
    with pytest.raises(DataError, match=r"The images of .*MURA-v1\.1/ have changed since this run started"):
        open_cache(table, size=SIZE, folder=folder, content=content.key(table))


def test_sizes_built_together_equal_those_built_alone(table, folder, tmp_path):
    together = open_caches(table, sizes=[16, SIZE], folder=folder)
    for size, cache in together.items():
        alone = open_cache(table, size=size, folder=tmp_path / "alone")
        assert alone.path.name == cache.path.name
        assert alone.path.read_bytes() == cache.path.read_bytes()


def test_only_missing_sizes_are_built(table, folder):
    first = open_cache(table, size=16, folder=folder).path
    os.utime(first, (0, 0))
    caches = open_caches(table, sizes=[16, SIZE], folder=folder)
    assert first.stat().st_mtime == 0
    assert caches[SIZE].images.any()


def test_progress_ends_at_the_number_of_images(table, folder):
    calls: list[tuple[int, int]] = []
    open_cache(table, size=SIZE, folder=folder, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(table), len(table))


def test_an_unreadable_image_is_named_left_out_and_black(table, folder):
    Path(table["path"][1]).write_bytes(b"not an image")
    cache = open_cache(table, size=SIZE, folder=folder)
    assert cache.unreadable == {table["image"][1]: "not a PNG, JPEG, TIFF, BMP or DICOM file, but text"}
    assert not cache.images[1].any()
    assert cache.readable(table)["image"].tolist() == table["image"].drop(1).tolist()


def test_a_file_that_disappeared_is_unreadable(table, folder):
    Path(table["path"][0]).unlink()
    reason = open_cache(table, size=SIZE, folder=folder).unreadable[table["image"][0]]
    assert "No such file" in reason


def test_a_truncated_cache_is_built_again(table, folder):
    path = open_cache(table, size=SIZE, folder=folder).path
    os.truncate(path, path.stat().st_size - 1)
    assert open_cache(table, size=SIZE, folder=folder).images[-1].any()


def test_a_cache_pickles_as_its_path(table, folder):
    cache = open_cache(table, size=SIZE, folder=folder)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    copy: PixelCache = pickle.loads(data)
    np.testing.assert_array_equal(copy.images, cache.images)


@pytest.mark.slow
def test_of_two_processes_that_build_at_once_one_does_the_work(table, folder):
    queue = SPAWN.Queue()
    processes = [SPAWN.Process(target=_open_and_count, args=(table, folder, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    built, sums = zip(*(queue.get(timeout=300) for _ in processes))
    assert sorted(built) == [False, True]
    assert len(set(sums)) == 1


@pytest.mark.slow
def test_a_killed_build_is_replaced_and_leaves_nothing(table, folder):
    process = SPAWN.Process(target=_build_and_hang, args=(table, folder))
    process.start()
    deadline = time.monotonic() + 300
    while not list(folder.glob("*.npy.tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert open_cache(table, size=SIZE, folder=folder).images.any()
    assert sorted(path.suffix for path in folder.glob("squares-*")) == [".json", ".lock", ".npy"]


def test_a_folder_that_cannot_be_written_is_an_error(table, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"image cache .* cannot be written to .*file/cache: Not a directory"):
        open_cache(table, size=SIZE, folder=tmp_path / "file" / "cache")


def test_a_full_disk_is_an_error_and_leaves_nothing(table, folder, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device"):
        open_caches(table, sizes=[16, SIZE], folder=folder)
    assert {path.suffix for path in folder.iterdir()} == {".lock"}


def test_a_square_that_a_full_disk_truncates_is_an_error(table, folder, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda handle, data, place: len(data) - 1)
    with pytest.raises(DataError, match="No space left on device"):
        open_cache(table, size=SIZE, folder=folder)


def test_a_cache_is_built_on_a_file_system_without_locks(table, folder, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *args: (_ for _ in ()).throw(OSError(37, "No locks available")))
    assert open_cache(table, size=SIZE, folder=folder).images.any()


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": 8, "workers": 0}])
def test_impossible_numbers_are_rejected(table, folder, bad):
    with pytest.raises(SettingsError, match="must be 1 or more"):
        open_cache(table, folder=folder, **bad)


def test_a_table_that_repeats_an_image_is_rejected(table, folder):
    with pytest.raises(DataError, match="each named once"):
        open_cache(pd.concat([table, table]), size=SIZE, folder=folder)


# Damage


def flip(path: Path, positions) -> None:
    content = bytearray(path.read_bytes())
    for position in positions:
        content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("position", [9, 70, -1, -40])
def test_a_flipped_byte_is_recognised_and_the_cache_is_built_again(table, folder, suffix, position):
    before = np.array(open_cache(table, size=SIZE, folder=folder).images)
    (path,) = folder.glob(f"squares-*{suffix}")
    flip(path, [position])
    (cache,) = open_caches(table, sizes=[SIZE], folder=folder, verify=True).values()
    np.testing.assert_array_equal(cache.images, before)
    open_caches(table, sizes=[SIZE], folder=folder, verify=True, inspect=_fail)


def test_an_undamaged_cache_is_not_built_again(table, folder):
    Path(table["path"].iloc[0]).write_bytes(b"not an image")  # its row is zero
    open_cache(table, size=SIZE, folder=folder)
    open_caches(table, sizes=[SIZE], folder=folder, verify=True, inspect=_fail)


def test_a_cache_of_an_earlier_version_has_no_checksums(table, folder):
    open_cache(table, size=SIZE, folder=folder)
    (sidecar,) = folder.glob("squares-*.json")
    content = json.loads(sidecar.read_text())
    del content["checksum"], content["checksums"]
    sidecar.write_text(json.dumps(content))
    open_caches(table, sizes=[SIZE], folder=folder, verify=True, inspect=_fail)
