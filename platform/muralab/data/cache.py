"""Decoded images on disk: one file of grey squares per size, which all trials of all processes map into memory.

Files in the cache folder, for one set of images and one size:

    squares-<size>-<key>.npy     uint8 [N, size, size], rows in the order of the sorted image names; exists = complete
    squares-<size>-<key>.json    the names of the rows, and why unreadable ones are all zeros
    squares-<size>-<key>.lock    locked by the process that builds
    *.tmp-<host>-<pid>-<thread>  an unfinished build, running or killed

The key covers name, size in bytes and modification time of every file, so a changed file gives a new cache. The lock
only saves work: each builder writes its own file and renames it, so two builders do no harm on a file system without
locks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.files import Consumer, ImageFile, Progress, fingerprint_files, read_images
from muralab.data.images.decode import to_square
from muralab.errors import DataError, SettingsError, numbered
from muralab.locks import locked

CACHE_VERSION = 3
"""Part of the key; increase it when preprocessing changes."""

Shape = tuple[int, int, int]


@final
class PixelCache:
    """A complete cache, mapped read-only. Pickles as its path, so it is cheap to send to another process.

    Args:
        path: the .npy file that `open_cache` built.
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
            DataError: an image is not in the cache.
        """
        rows = np.asarray(self._names.get_indexer(table["image"]), dtype=np.int64)
        if (rows < 0).any():
            unknown = table["image"][rows < 0].tolist()
            raise DataError(numbered(f"{len(unknown)} images are not in the cache {self.path}:", unknown))
        return rows

    def readable(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table without the images that could not be decoded (`unreadable` holds the reasons)."""
        return table[~table["image"].isin(list(self.unreadable))].reset_index(drop=True)


def open_cache(
    table: pd.DataFrame,
    *,
    size: int,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PixelCache:
    """Open the cache of a table's images at one size; see `open_caches`."""
    return open_caches(table, sizes=[size], folder=folder, workers=workers, progress=progress)[size]


def open_caches(
    table: pd.DataFrame,
    *,
    sizes: Iterable[int],
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    inspect: Consumer | None = None,
) -> dict[int, PixelCache]:
    """Open the caches of a table's images, and build the missing ones in one pass over the files.

    Args:
        table: images (unique names) and their paths.
        sizes: sides of the squares in px.
        folder: holds the caches; created if missing.
        workers: decoding threads; None takes one per core.
        progress: called with (images done, images in total) while building.
        inspect: also called for every decoded file, in the order of the sorted image names, if anything is built.

    Returns:
        Size -> cache.

    Raises:
        DataError: the table is empty or names an image twice, a file exists and cannot be read, or the folder cannot be
            written (a full disk).
        SettingsError: an impossible size or number of workers.
    """
    sizes = sorted(set(sizes))
    if not sizes or sizes[0] < 1 or (workers is not None and workers < 1):
        raise SettingsError(f"Sizes and workers must be 1 or more, received sizes={sizes}, workers={workers}.")
    images = table[["image", "path"]].sort_values("image", ignore_index=True)
    if images.empty or images["image"].duplicated().any():
        raise DataError("A cache needs a table of at least one image, each named once.")
    folder = Path(folder).absolute()
    keys = {size: fingerprint_files(images, f"squares {CACHE_VERSION} {size}") for size in sizes}
    builds = [_Build(images, size, folder / f"squares-{size}-{key}.npy") for size, key in keys.items()]
    missing = [build for build in builds if not build.is_complete()]
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _build_all(missing, images, workers, progress, inspect)
        except OSError as error:
            needed_gb = sum(build.n_bytes for build in missing) / 1e9
            reason = error.strerror or error
            raise DataError(f"The image cache ({needed_gb:.2f} GB) cannot be written to {folder}: {reason}.") from error
    return {build.size: PixelCache(build.target) for build in builds}


def _build_all(
    builds: Sequence[_Build],
    images: pd.DataFrame,
    workers: int | None,
    progress: Progress | None,
    inspect: Consumer | None,
) -> None:
    """Build caches of several sizes at once; another process may have finished some of them meanwhile."""
    with ExitStack() as locks, ExitStack() as files:
        consumers = []
        done = []
        for build in builds:  # in the order of their sizes, so that two processes cannot wait for each other
            alone = locks.enter_context(locked(build.target.with_suffix(".lock")))
            if build.is_complete():
                continue
            if alone:
                build.remove_leftovers()
            consumers.append(files.enter_context(build.open()))
            done.append(build)
        if consumers:
            read_images(
                images["path"].tolist(),
                consumers if inspect is None else [*consumers, inspect],
                workers=workers,
                progress=progress,
            )
        files.close()
        for build in done:
            build.remove_outdated()


class _Build:
    """The cache of one size, being built."""

    def __init__(self, images: pd.DataFrame, size: int, target: Path) -> None:
        self.names: list[str] = images["image"].tolist()
        self.source = hashlib.blake2b("\n".join(images["path"]).encode(), digest_size=12).hexdigest()
        self.size, self.target = size, target
        self.header = _header((len(images), size, size))
        self.n_bytes = len(self.header) + len(images) * size * size

    def is_complete(self) -> bool:
        """Whether both files exist, and the pixels in full (a copy may have been truncated)."""
        target = self.target
        return target.is_file() and target.stat().st_size == self.n_bytes and target.with_suffix(".json").is_file()

    @contextmanager
    def open(self) -> Iterator[Consumer]:
        """Yield a function that writes the square of each image to its place; then publish both files, pixels last."""
        unreadable: dict[int, str] = {}
        with atomic_path(self.target, sync=True) as pixels:
            with pixels.open("wb") as file:
                file.write(self.header)
                file.truncate(self.n_bytes)
                file.flush()

                def write(row: int, image: ImageFile) -> None:
                    if image.grey is None:
                        unreadable[row] = image.reason  # its row stays zero
                    else:
                        self._write_square(file.fileno(), row, image.grey)

                yield write
            with atomic_path(self.target.with_suffix(".json")) as sidecar:
                reasons = {self.names[row]: unreadable[row] for row in sorted(unreadable)}
                content = {"source": self.source, "size": self.size, "unreadable": reasons, "images": self.names}
                sidecar.write_text(json.dumps(content), encoding="utf-8")

    def _write_square(self, handle: int, row: int, grey: npt.NDArray[np.uint8]) -> None:
        square = np.ascontiguousarray(to_square(grey, self.size))
        # pwrite instead of a memory map: a full disk raises an error here and does not kill the process.
        if os.pwrite(handle, square.data, len(self.header) + row * square.size) < square.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a partial write raises no error itself

    def remove_leftovers(self) -> None:
        """Remove the files of killed builders; only while holding the lock, when nobody else can be building."""
        for leftover in self.target.parent.glob(f"{self.target.stem}.*.tmp-*"):
            leftover.unlink(missing_ok=True)

    def remove_outdated(self) -> None:
        """Remove caches of this size of the same paths before the files changed; open ones stay mapped."""
        for sidecar in self.target.parent.glob(f"squares-{self.size}-*.json"):
            if sidecar.stem == self.target.stem:
                continue
            with contextlib.suppress(OSError, ValueError):
                if json.loads(sidecar.read_text(encoding="utf-8")).get("source") == self.source:
                    for suffix in (".npy", ".json", ".lock"):
                        sidecar.with_suffix(suffix).unlink(missing_ok=True)


def _header(shape: Shape) -> bytes:
    """The header of a .npy file of uint8."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()
