"""Every image decoded once: a file of grey squares that all trials of all processes map into memory.

Layout of the cache folder, for one set of files and one size:

    squares-<size>-<key>.npy     uint8 [N, size, size], rows in the order of the sorted image names; there = complete
    squares-<size>-<key>.json    the names of the rows, and why an unreadable one is all zeros
    squares-<size>-<key>.lock    held (flock) by the process that builds, with its pid and host as text
    *.tmp-<host>-<pid>           a build under way, or what a killed one left

The key covers name, size in bytes and modification time of every file, so a changed file is a new cache. The lock only
saves work: each builder writes a file of its own and renames it, so two of them cannot harm each other where a file
system knows no locks, and the kernel frees the lock of a process that dies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pandas as pd

from muralab.data.files import fingerprint_files, read_square
from muralab.errors import DataError, ImageError, SettingsError, numbered

CACHE_VERSION = 2  # to be raised when preprocessing changes
CHUNK = 32

Progress = Callable[[int, int], None]
Shape = tuple[int, int, int]


@final
class PixelCache:
    """A complete cache, mapped read-only; pickles as its path, so that it can be sent to another process.

    Args:
        path: the .npy file that `open_cache` made.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        sidecar = json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))
        self.images: np.memmap[Any, np.dtype[np.uint8]] = np.load(self.path, mmap_mode="r")
        self.size = int(self.images.shape[1])
        self.unreadable: dict[str, str] = sidecar["unreadable"]
        self._names = pd.Index(sidecar["images"])

    def __reduce__(self) -> tuple[type[PixelCache], tuple[Path]]:
        return PixelCache, (self.path,)

    def rows(self, table: pd.DataFrame) -> npt.NDArray[np.int64]:
        """The cache row of each image of a table, int64 [n].

        Raises:
            DataError: an image that the cache does not hold.
        """
        rows = np.asarray(self._names.get_indexer(table["image"]), dtype=np.int64)
        if (rows < 0).any():
            unknown = table["image"][rows < 0].tolist()
            raise DataError(numbered(f"{len(unknown)} images are not in the cache {self.path}:", unknown))
        return rows

    def readable(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table without the images that could not be decoded (`unreadable` says why)."""
        return table[~table["image"].isin(list(self.unreadable))].reset_index(drop=True)


def open_cache(
    table: pd.DataFrame,
    *,
    size: int,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PixelCache:
    """Open the cache of a table's images, building it first if need be.

    Args:
        table: images (unique names) and their paths.
        size: side of the squares in px.
        folder: where caches lie; made if it is not there.
        workers: decoding threads; None takes one per core.
        progress: called with (images done, images in all) while building.

    Raises:
        DataError: the table is empty or names an image twice, a file is there and cannot be read, or the folder cannot
            be written (a full disk).
        SettingsError: an impossible size or number of workers.
    """
    if size < 1 or (workers is not None and workers < 1):
        raise SettingsError(f"Size and workers must be 1 or more, received size={size}, workers={workers}.")
    images = table[["image", "path"]].sort_values("image", ignore_index=True)
    if images.empty or images["image"].duplicated().any():
        raise DataError("A cache needs a table of at least one image, each named once.")
    folder = Path(folder).absolute()
    key = fingerprint_files(images, f"squares {CACHE_VERSION} {size}")
    target = folder / f"squares-{size}-{key}.npy"
    shape = (len(images), size, size)
    if _is_complete(target, shape):
        return PixelCache(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_suffix(".lock")) as alone:
            if not _is_complete(target, shape):
                if alone:
                    _remove_leftovers(target)
                _build(images, shape, target, workers or os.cpu_count() or 1, progress)
                _remove_outdated(images, target)
    except OSError as error:
        needed_gb = np.prod(shape, dtype=np.int64) / 1e9
        reason = error.strerror or error
        raise DataError(f"The image cache ({needed_gb:.2f} GB) cannot be written to {folder}: {reason}.") from error
    return PixelCache(target)


def _header(shape: Shape) -> bytes:
    """What stands before the pixels in a .npy file."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(10 + len(text) + 1) % 64
    body = (text + " " * padding + "\n").encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def _is_complete(target: Path, shape: Shape) -> bool:
    """Whether both files are there, and the pixels whole (a copy may have been cut short)."""
    expected = len(_header(shape)) + int(np.prod(shape, dtype=np.int64))
    return target.is_file() and target.stat().st_size == expected and target.with_suffix(".json").is_file()


def _build(images: pd.DataFrame, shape: Shape, target: Path, workers: int, progress: Progress | None) -> None:
    """Decode all images into files of this process's own, then give them their names, the pixels last."""
    suffix = f".tmp-{socket.gethostname()}-{os.getpid()}"
    pixels, sidecar = target.with_name(target.name + suffix), target.with_name(target.stem + ".json" + suffix)
    try:
        with pixels.open("wb") as file:
            file.write(_header(shape))
            file.truncate(len(_header(shape)) + int(np.prod(shape, dtype=np.int64)))
            file.flush()
            unreadable = _write_squares(file.fileno(), images["path"].tolist(), shape, workers, progress)
            os.fsync(file.fileno())
        names = images["image"].tolist()
        reasons = {names[row]: unreadable[row] for row in sorted(unreadable)}
        content = {"source": _source(images), "size": shape[1], "unreadable": reasons, "images": names}
        sidecar.write_text(json.dumps(content), encoding="utf-8")
        sidecar.replace(target.with_suffix(".json"))
        pixels.replace(target)
    finally:
        pixels.unlink(missing_ok=True)
        sidecar.unlink(missing_ok=True)


def _write_squares(
    handle: int, paths: list[str], shape: Shape, workers: int, progress: Progress | None
) -> dict[int, str]:
    """Decode in threads (Pillow and OpenCV free the interpreter) and write each square to its place.

    Returns:
        Row -> why it could not be decoded; such a row stays zero.
    """
    size, start = shape[1], len(_header(shape))

    def write_chunk(first: int) -> tuple[int, dict[int, str]]:
        failed = {}
        chunk = range(first, min(first + CHUNK, len(paths)))
        for row in chunk:
            try:
                square = read_square(Path(paths[row]), size)
            except ImageError as error:
                failed[row] = str(error)
                continue
            # pwrite, not a memory map: a full disk is then an error here, not a killed process.
            if os.pwrite(handle, np.ascontiguousarray(square).data, start + row * size * size) < size * size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what fitted was written, without an error
        return len(chunk), failed

    unreadable: dict[int, str] = {}
    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="muralab-cache") as pool:
        futures = [pool.submit(write_chunk, first) for first in range(0, len(paths), CHUNK)]
        try:
            for future in as_completed(futures):
                count, failed = future.result()
                unreadable |= failed
                done += count
                if progress is not None:
                    progress(done, len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return unreadable


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Wait until no other process builds this cache; yields False where the file system has no locks."""
    import fcntl

    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield alone


def _remove_leftovers(target: Path) -> None:
    """What killed builders left; only under the lock, when nobody else can be building."""
    for leftover in target.parent.glob(f"{target.stem}.*.tmp-*"):
        leftover.unlink(missing_ok=True)


def _remove_outdated(images: pd.DataFrame, target: Path) -> None:
    """Caches of files at the same places and size before they changed; who has one open keeps it."""
    source = _source(images)
    prefix = target.stem.rpartition("-")[0]
    for sidecar in target.parent.glob(f"{prefix}-*.json"):
        if sidecar.stem == target.stem:
            continue
        with contextlib.suppress(OSError, ValueError):
            if json.loads(sidecar.read_text(encoding="utf-8")).get("source") == source:
                for suffix in (".npy", ".json", ".lock"):
                    sidecar.with_suffix(suffix).unlink(missing_ok=True)


def _source(images: pd.DataFrame) -> str:
    return hashlib.blake2b("\n".join(images["path"]).encode(), digest_size=12).hexdigest()
