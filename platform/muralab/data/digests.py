"""What the files of a table contain: a digest of each file's bytes, remembered for as long as the file is unchanged.

Caches and audits are found by these digests and by relative names, so neither a renamed file nor `touch` makes an old
cache pass for other pictures, and a moved or copied tree keeps its caches. Reading every file would take minutes, so a
digest is remembered for the device, inode, size, modification time and change time of its file; no program can set the
last of them. A file that was changed so recently that its times might not show another change is read again.

    digests-<names>.npy     REMEMBERED [files], of the last few trees with these image names
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.files import ImageFile, Progress, hash_files

STATE = ("device", "inode", "size", "modified_ns", "changed_ns")
REMEMBERED = np.dtype([*((name, "<u8" if name in ("device", "inode") else "<i8") for name in STATE), ("digest", "S32")])
MISSING = ""
"""Stands for the digest of a file that does not exist."""
TREES = 4
"""Of the same image names, whose digests are remembered."""
TICK_NS, COARSE_TICK_NS = 20_000_000, 2_000_000_000
"""How far apart two changes must be to get different times; the second on file systems that count whole seconds."""

State = tuple[int, ...]
"""Values of `STATE`; empty for a file that exists and cannot be looked up."""


@final
class FileDigests:
    """Digests of the files of a table: the remembered ones at once, the others after a reading."""

    def __init__(self, table: pd.DataFrame, folder: Path) -> None:
        """Look up what is remembered; no image is opened.

        Args:
            table: images (unique names) and their paths.
            folder: remembers digests; created when the first ones are stored.
        """
        self._paths = [str(path) for path in table["path"]]
        self._file = Path(folder).absolute() / f"digests-{names_key(table)}.npy"
        self._states = {path: _state_of(path) for path in self._paths}
        self._digests = {path: MISSING for path, state in self._states.items() if state is None}
        self._supplied: set[str] = set()
        self._has_new = False
        self.recall()
        self._settled_ns = _settle(filter(None, self._states.values())) if self.unknown else time.time_ns()

    def recall(self) -> None:
        """Look up again what is remembered: another process may have read the files meanwhile."""
        if not self.unknown:
            return
        remembered = {row[:-1]: row[-1].decode() for row in _read(self._file)}
        for path in self.unknown:
            state = self._states[path]
            if state in remembered:
                self._digests[path] = remembered[state]

    @property
    def unknown(self) -> list[str]:
        """Paths of the files whose digests are not known until they are read."""
        return [path for path in self._paths if path not in self._digests]

    def collect(self, _position: int, image: ImageFile) -> None:
        """A consumer of files that are read anyway; call `save` at the end."""
        self._digests[image.path] = image.digest
        self._supplied.discard(image.path)
        self._has_new = True

    def supply(self, digests: Mapping[str, str]) -> None:
        """Take digests of files that were read earlier, path -> digest; they are not remembered."""
        new = {path: digest for path, digest in digests.items() if path not in self._digests}
        self._digests |= new
        self._supplied |= set(new)

    def read(self, *, workers: int | None = None, progress: Progress | None = None) -> None:
        """Read the files whose digests are not known, and remember them.

        Raises:
            DataError: a file exists and cannot be read.
        """
        if unknown := self.unknown:
            self._digests |= dict(zip(unknown, hash_files(unknown, workers=workers, progress=progress)))
            self._has_new = True
        self.save()

    def of(self, table: pd.DataFrame) -> list[str]:
        """The digest of each image's file, 32 hex characters; empty for a missing file and for one not read yet."""
        return [self._digests.get(str(path), MISSING) for path in table["path"]]

    def key(self, table: pd.DataFrame) -> str | None:
        """Digest of the names and contents of some of the images, in any order; None if not all are known."""
        digest = hashlib.blake2b(digest_size=16)
        for image, path in sorted(zip(table["image"], table["path"])):
            content = self._digests.get(str(path))
            if content is None:
                return None
            digest.update(f"{image}\t{content}\n".encode())
        return digest.hexdigest()

    def save(self) -> None:
        """Remember what was read, but for files that have changed since they were looked up."""
        if not self._has_new:
            return
        self._has_new = False
        known = {
            state: self._digests[path].encode()
            for path, state in self._states.items()
            if state and path in self._digests and path not in self._supplied
            if self._is_settled(state) and _state_of(path) == state
        }
        earlier = [row for row in _read(self._file) if row[:-1] not in known][: (TREES - 1) * len(self._paths)]
        rows = np.array([*((*state, digest) for state, digest in known.items()), *earlier], dtype=REMEMBERED)
        with contextlib.suppress(OSError):  # it only saves time, and who needs the folder for more will report it
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._file) as path, path.open("wb") as file:
                np.save(file, rows)

    def _is_settled(self, state: State) -> bool:
        """Whether any change after the reading gives the file another change time."""
        changed_ns = state[STATE.index("changed_ns")]
        tick_ns = TICK_NS if changed_ns % 1_000_000_000 else COARSE_TICK_NS
        return changed_ns + tick_ns <= self._settled_ns


def names_key(table: pd.DataFrame) -> str:
    """Digest of the image names of a table, in any order: 12 hex characters."""
    return hashlib.blake2b("\0".join(sorted(table["image"])).encode(), digest_size=6).hexdigest()


def _state_of(path: str) -> State | None:
    """What changes with a file's content; None for a missing file."""
    try:
        found = os.stat(path)  # noqa: PTH116  (half the time of Path.stat, for 40,000 files)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # reading it will tell why
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _settle(states: Iterable[State]) -> int:
    """Wait, for a tick at most, until any further change of these files would show in their times; returns the time."""
    newest_ns = max((state[STATE.index("changed_ns")] for state in states), default=0)
    wait_ns = newest_ns + TICK_NS - time.time_ns()
    if 0 < wait_ns <= TICK_NS:
        time.sleep(wait_ns / 1e9)
    return time.time_ns()


def _read(file: Path) -> list[tuple[Any, ...]]:
    """The rows of what is remembered; none where the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        rows = np.load(file)
        if rows.dtype == REMEMBERED:
            return list(rows.tolist())
    return []
