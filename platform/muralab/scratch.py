"""Temporary files of a command: one folder, locked while the command runs, removed at its end or by a later command."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muralab.errors import SettingsError
from muralab.locks import Lock, LockState

PREFIX = "muralab-"
LOCK = "lock"
FRESH_S = 3600.0
"""A folder without a lock may have been created a moment ago; older ones were left by a killed process."""
LONGEST_SOCKET_BYTES = 107 if sys.platform == "linux" else 103
"""Of a socket's path."""
SHORT_ROOTS = ("/tmp", "/var/tmp", "/dev/shm")
NO_FOLDER = "Set TMPDIR=<folder> to one that exists, can be written and has free space."


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for everything that this process and its children write; removed at the end.

    What killed commands of this user left on this machine is removed at the start.

    Raises:
        SettingsError: there is no temporary folder.
    """
    root, before = _root(), os.environ.get("TMPDIR")
    for stale in find_stale(root):
        remove_folder(stale)
    folder = _create(root)
    lock = lock_folder(folder)
    tempfile.tempdir, os.environ["TMPDIR"] = str(folder), str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = str(root)
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
        remove_folder(folder)
        lock.release()


def short_folder(n_bytes: int) -> Path:
    """A new temporary folder with a path so short that `n_bytes` more are a valid path of a socket.

    Raises:
        SettingsError: there is none.
    """
    for root in (tempfile.gettempdir(), *SHORT_ROOTS):
        longest = len(os.fsencode(root)) + len(f"/{PREFIX}") + 8 + n_bytes
        if longest <= LONGEST_SOCKET_BYTES and os.access(root, os.W_OK | os.X_OK):
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    raise SettingsError(
        f"Ray's sockets need a temporary folder whose path has at most {LONGEST_SOCKET_BYTES - n_bytes - 17} "
        f"characters, and {tempfile.gettempdir()} is longer. {NO_FOLDER}"
    )


def own_scratch() -> Path | None:
    """The folder of `scratch_folder` that is in use in this process."""
    folder = Path(tempfile.gettempdir())
    return folder if folder.name.startswith(PREFIX) and (folder / LOCK).exists() else None


def find_stale(root: Path | None = None) -> list[Path]:
    """Folders of this user whose command has been killed."""
    roots = [root or _root(), *map(Path, SHORT_ROOTS)]
    folders = {folder for one in roots for folder in one.glob(f"{PREFIX}*")}
    return sorted(folder for folder in folders if _is_stale(folder))


def _is_stale(folder: Path) -> bool:
    try:
        status = folder.stat(follow_symlinks=False)
        if not folder.is_dir() or folder.is_symlink() or status.st_uid != os.getuid():
            return False
        if not (folder / LOCK).exists():
            return time.time() - _last_change(folder) > FRESH_S
        with Lock(folder / LOCK) as lock:
            return lock.state is LockState.HELD
    except OSError:
        return False


def _last_change(folder: Path) -> float:
    """Unix time of the last change of anything in a folder: Ray writes its logs deep inside."""
    return max(path.stat(follow_symlinks=False).st_mtime for path in (folder, *folder.rglob("*")))


def remove_folder(folder: Path) -> None:
    """Remove a folder; what cannot be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def _root() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise SettingsError(f"There is no temporary folder that can be written ({error}). {NO_FOLDER}") from error


def _create(root: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    except OSError as error:
        raise SettingsError(f"The temporary folder {root} cannot be written ({error.strerror}). {NO_FOLDER}") from error


def lock_folder(folder: Path) -> Lock:
    """Mark a folder as in use, until the lock is released or the process dies; not on a file system without locks."""
    return Lock(folder / LOCK)
