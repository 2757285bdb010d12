"""Locks between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on a file, waiting for it as long as it takes.

    The kernel releases the lock of a process that dies. A file system without locks is no error: lock only to avoid
    duplicate work or to remove leftovers, never to protect data.

    Args:
        path: the lock file; it is created if missing and stays.

    Yields:
        Whether the lock is held; False on a file system without locks.
    """
    from filelock import FileLock

    lock = FileLock(path, fallback_to_soft=False)  # the fallback is a file that outlives a killed process
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        held = False
    else:
        held = True
    try:
        yield held
    finally:
        lock.release()
