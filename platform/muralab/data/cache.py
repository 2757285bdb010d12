"""Decoded images on disk: one file of grey squares per size, which all trials of all processes map into memory.

Files in the cache folder, for one set of image names, one size and one content of the files:

    squares-<size>-<names>-<key>.npy     uint8 [N, size, size], rows in the order of the sorted names; exists = complete
    squares-<size>-<names>-<key>.json    names and checksums of the rows, and why unreadable ones are all zeros
    squares-<size>-<names>.lock          locked by the process that builds
    *.tmp-<host>-<pid>-<thread>          an unfinished build, running or killed
    digests-<names>.npy                  digests of the image files, see `digests.py`

Names are relative to the tree, and the key covers them and the bytes of every file: a file with other content, under
whatever name and with whatever times, gives a new cache, and a tree that was moved or copied keeps its own. The lock
only saves work: each builder writes its own file and renames it, so two builders do no harm on a file system without
locks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pandas as pd

from muralab.atomic import atomic_path, publish, temporary_path
from muralab.data.digests import FileDigests, names_key
from muralab.data.files import Consumer, ImageFile, Progress, read_images
from muralab.data.images.decode import to_square
from muralab.data.images.value_range import ValueRange, range_to_text
from muralab.data.names import REAL
from muralab.data.squares_check import is_intact, squares_header, text_checksum
from muralab.errors import DataError, SettingsError, numbered
from muralab.locks import locked

CACHE_VERSION = 3
"""Part of the key; increase it when preprocessing changes."""


@final
class PixelCache:
    """A complete cache, mapped read-only. Pickles as its path, so it is cheap to send to another process.

    Args:
        path: the .npy file that `open_cache` built.
        codes: name of an image below the root -> its code, for tables that hold nothing but codes.
    """

    def __init__(self, path: Path, codes: Mapping[str, str] | None = None) -> None:
        self.path, self._codes = Path(path), codes
        sidecar = json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))
        self.images: np.memmap[Any, np.dtype[np.uint8]] = np.load(self.path, mmap_mode="r")
        self.size = int(self.images.shape[1])
        known = codes or {}
        self.unreadable: dict[str, str] = {known.get(name, name): why for name, why in sidecar["unreadable"].items()}
        self._names = pd.Index([known.get(name, name) for name in sidecar["images"]])

    def __reduce__(self) -> tuple[type[PixelCache], tuple[Path, Mapping[str, str] | None]]:
        return PixelCache, (self.path, self._codes)

    def coded(self, index: pd.DataFrame) -> PixelCache:
        """The same for the codes of an index; the cache itself where the index has none."""
        return (
            PixelCache(self.path, dict(zip(index[REAL["image"]], index["image"]))) if REAL["image"] in index else self
        )

    def _names_in(self, table: pd.DataFrame) -> pd.Series:
        return table["image"] if self._codes else file_names(table)

    def rows(self, table: pd.DataFrame) -> npt.NDArray[np.int64]:
        """The cache row of each image of a table, int64 [n].

        Raises:
            DataError: an image is not in the cache.
        """
        rows = np.asarray(self._names.get_indexer(self._names_in(table)), dtype=np.int64)
        if (rows < 0).any():
            unknown = table["image"][rows < 0].tolist()
            raise DataError(numbered(f"{len(unknown)} images are not in the cache {self.path}:", unknown))
        return rows

    def readable(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table without the images that could not be decoded (`unreadable` holds the reasons)."""
        return table[~self._names_in(table).isin(list(self.unreadable))].reset_index(drop=True)


def file_names(table: pd.DataFrame) -> pd.Series:
    """What a cache knows the images of a table by: their names below the root, also where the table has codes."""
    return table[REAL["image"]] if REAL["image"] in table else table["image"]


def open_cache(
    table: pd.DataFrame,
    *,
    size: int,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    content: str | None = None,
    value_range: ValueRange | None = None,
) -> PixelCache:
    """Open the cache of a table's images at one size; see `open_caches`."""
    caches = open_caches(
        table,
        sizes=[size],
        folder=folder,
        workers=workers,
        progress=progress,
        content=content,
        value_range=value_range,
    )
    return caches[size]


def open_caches(
    table: pd.DataFrame,
    *,
    sizes: Iterable[int],
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    inspect: Consumer | None = None,
    digests: FileDigests | None = None,
    content: str | None = None,
    value_range: ValueRange | None = None,
    verify: bool = False,
) -> dict[int, PixelCache]:
    """Open the caches of a table's images, and build the missing ones in one pass over the files.

    Args:
        table: images (unique names) and their paths.
        sizes: sides of the squares in px.
        folder: holds the caches; created if missing.
        workers: decoding threads; None takes one per core.
        progress: called with (images done, images in total) while building.
        inspect: also called for every decoded file, in the order of the sorted image names, if anything is built.
        digests: of the table's files, which knows all of them afterwards; None: looked up in the folder.
        content: the key (`FileDigests.key`) of what the files must contain; complete caches of it are then opened
            without a look at the files. None: of the files as they are now.
        value_range: of the data set, see `decode`; each range has a cache of its own.
        verify: whether the caches that exist are read whole, and built again if a checksum does not fit.

    Returns:
        Size -> cache.

    Raises:
        DataError: the table is empty or names an image twice, a file exists and cannot be read, the files do not have
            this content, or the folder cannot be written (a full disk).
        SettingsError: an impossible size or number of workers.
    """
    sizes = sorted(set(sizes))
    if not sizes or sizes[0] < 1 or (workers is not None and workers < 1):
        raise SettingsError(f"Sizes and workers must be 1 or more, received sizes={sizes}, workers={workers}.")
    images = pd.DataFrame({"image": file_names(table), "path": table["path"]}).sort_values("image", ignore_index=True)
    if images.empty or images["image"].duplicated().any():
        raise DataError("A cache needs a table of at least one image, each named once.")
    builds = [_Build(images, size, Path(folder).absolute(), value_range) for size in sizes]
    if verify and content is not None:
        _remove_damaged(builds, content, workers)
    if content is None or not all(build.is_complete(content) for build in builds):
        digests = digests or FileDigests(images, folder)
        if content is not None or any(build.has_earlier() for build in builds):
            digests.read(workers=workers, progress=progress)  # much faster than to decode what is cached already
        if content not in (None, digests.key(images)):
            raise DataError(
                f"The images of {_root_of(images)} have changed since this run started, and no cache of them is left "
                "as they were then. Put them back, or start a new run."
            )
        if verify:
            _remove_damaged(builds, digests.key(images), workers)
        missing = [build for build in builds if not build.is_complete(digests.key(images))]
        if missing:
            with _writing_to(Path(folder).absolute(), missing):
                _build_all(missing, images, digests, workers, progress, inspect)
        content = digests.key(images)
    return {build.size: PixelCache(build.target(str(content))) for build in builds}


def squares_files(
    table: pd.DataFrame, *, size: int, folder: Path, content: str, value_range: ValueRange | None = None
) -> tuple[Path, Path]:
    """The two files of a complete cache, whether they exist or not: names first, pixels last, as they are written.

    Args:
        table: images and their paths.
        size: side of the squares in px.
        folder: holds the caches.
        content: the key of what the files contain, see `open_caches`.
        value_range: of the data set.
    """
    images = pd.DataFrame({"image": file_names(table), "path": table["path"]}).sort_values("image", ignore_index=True)
    pixels = _Build(images, size, folder, value_range).target(content)
    return pixels.with_suffix(".json"), pixels


def _remove_damaged(builds: Sequence[_Build], content: str | None, workers: int | None) -> None:
    """Remove pixels that, or whose names, are not what was written, so that they are built again."""
    for build in builds:
        if content is not None and build.is_complete(content) and not is_intact(build.target(content), workers):
            build.target(content).unlink(missing_ok=True)


def _root_of(images: pd.DataFrame) -> str:
    """The folder that the names of a table's images are relative to."""
    return str(images["path"].iloc[0]).removesuffix(images["image"].iloc[0]) or "/"


@contextmanager
def _writing_to(folder: Path, builds: Sequence[_Build]) -> Iterator[None]:
    """Create the folder, and say what does not fit into it where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        needed_gb = sum(build.n_bytes for build in builds) / 1e9
        reason = error.strerror or error
        raise DataError(f"The image cache ({needed_gb:.2f} GB) cannot be written to {folder}: {reason}.") from error


def _build_all(
    builds: Sequence[_Build],
    images: pd.DataFrame,
    digests: FileDigests,
    workers: int | None,
    progress: Progress | None,
    inspect: Consumer | None,
) -> None:
    """Build caches of several sizes at once; another process may have finished some of them meanwhile."""

    def content() -> str:
        return str(digests.key(images))

    with ExitStack() as locks, ExitStack() as files:
        # In the order of their sizes, so that two processes cannot wait for each other.
        alone = [locks.enter_context(locked(build.lock)) for build in builds]
        digests.recall()
        waiting = [build for build in builds if not build.is_complete(digests.key(images))]
        if not waiting:
            return
        for build in waiting if all(alone) else ():
            build.remove_leftovers()
        consumers = [files.enter_context(build.open(content)) for build in waiting]
        consumers += [digests.collect] if inspect is None else [digests.collect, inspect]
        value_range = waiting[0].value_range
        paths = images["path"].tolist()
        read_images(paths, consumers, value_range=value_range, workers=workers, progress=progress)
        files.close()
        digests.save()
        for build in waiting:
            build.remove_outdated(content())


class _Build:
    """The cache of one size, to be found or built."""

    def __init__(self, images: pd.DataFrame, size: int, folder: Path, value_range: ValueRange | None) -> None:
        self.names: list[str] = images["image"].tolist()
        self.source = hashlib.blake2b("\n".join(images["path"]).encode(), digest_size=12).hexdigest()
        self.size, self.folder, self.value_range = size, folder, value_range
        self.stem = f"squares-{size}-{names_key(images)}"
        self.lock = folder / f"{self.stem}.lock"
        self.header = squares_header(len(images), size)
        self.n_bytes = len(self.header) + len(images) * size * size

    def target(self, content: str) -> Path:
        """Where the squares of files with some content are, given as `FileDigests.key`."""
        purpose = f"squares {CACHE_VERSION} {self.size} {content} {range_to_text(self.value_range)}".rstrip()
        key = hashlib.blake2b(purpose.encode(), digest_size=12).hexdigest()
        return self.folder / f"{self.stem}-{key}.npy"

    def is_complete(self, content: str | None) -> bool:
        """Whether both files exist, and the pixels in full (a copy may have been truncated); False for None."""
        if content is None:
            return False
        target = self.target(content)
        return target.is_file() and target.stat().st_size == self.n_bytes and target.with_suffix(".json").is_file()

    def has_earlier(self) -> bool:
        """Whether there is a cache of these names, of the same files or of others."""
        return any(self.folder.glob(f"{self.stem}-*.npy"))

    @contextmanager
    def open(self, content: Callable[[], str]) -> Iterator[Consumer]:
        """Yield a function that writes the square of each image to its place; then publish both files, pixels last.

        Args:
            content: gives the key of what was decoded; called at the end.
        """
        unreadable: dict[int, str] = {}
        checksums = [zlib.crc32(bytes(self.size * self.size))] * len(self.names)
        with temporary_path(self.folder / f"{self.stem}.npy") as pixels:
            with pixels.open("wb") as file:
                file.write(self.header)
                file.truncate(self.n_bytes)
                file.flush()

                def write(row: int, image: ImageFile) -> None:
                    if image.grey is None:
                        unreadable[row] = image.reason  # its row stays zero
                    else:
                        checksums[row] = self._write_square(file.fileno(), row, image.grey)

                yield write
            target = self.target(content())
            with atomic_path(target.with_suffix(".json")) as sidecar:
                reasons = {self.names[row]: unreadable[row] for row in sorted(unreadable)}
                described: dict[str, Any] = {
                    "source": self.source,
                    "size": self.size,
                    "range": range_to_text(self.value_range),
                    "unreadable": reasons,
                    "images": self.names,
                }
                described["checksums"] = checksums
                sidecar.write_text(json.dumps({**described, "checksum": text_checksum(described)}), encoding="utf-8")
            publish(pixels, target, sync=True)

    def _write_square(self, handle: int, row: int, grey: npt.NDArray[np.uint8]) -> int:
        """Write a square to its place; returns its checksum."""
        square = np.ascontiguousarray(to_square(grey, self.size))
        # pwrite instead of a memory map: a full disk raises an error here and does not kill the process.
        if os.pwrite(handle, square.data, len(self.header) + row * square.size) < square.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a partial write raises no error itself
        return zlib.crc32(square.data)

    def remove_leftovers(self) -> None:
        """Remove the files of killed builders; only while holding the lock, when nobody else can be building."""
        for leftover in self.folder.glob(f"{self.stem}*.tmp-*"):
            leftover.unlink(missing_ok=True)

    def remove_outdated(self, content: str) -> None:
        """Remove caches of this size of the same paths before the files changed, or their range was decided.

        Those of another range, with which another model was trained, are kept; open ones stay mapped.
        """
        for sidecar in self.folder.glob(f"squares-{self.size}-*.json"):
            if sidecar.stem == self.target(content).stem:
                continue
            with contextlib.suppress(OSError, ValueError):
                other = json.loads(sidecar.read_text(encoding="utf-8"))
                ranges = ("", range_to_text(self.value_range))
                if other.get("source") == self.source and other.get("range", "") in ranges:
                    for suffix in (".npy", ".json", ".lock"):
                        sidecar.with_suffix(suffix).unlink(missing_ok=True)
