"""Locks between processes: the kernel's, on a file, released with a process that dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self, final


class LockState(Enum):
    """The result of trying to take a lock."""

    HELD = "held"
    TAKEN = "another process holds it"
    UNSUPPORTED = "the file system has no locks, or the file cannot be created"


@final
class Lock:
    """An exclusive lock on a file, which is created if missing and stays; a context manager that releases it."""

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        """Try to take the lock; `state` is the result.

        Args:
            path: the lock file.
            wait: as long as another process holds it; then it is never `TAKEN`.
        """
        from filelock import FileLock, Timeout

        self._lock = FileLock(path, fallback_to_soft=False)  # the fallback is a file that outlives a killed process
        try:
            self._lock.acquire(timeout=-1 if wait else 0)
            self.state = LockState.HELD
        except Timeout:  # is an OSError
            self.state = LockState.TAKEN
        except (OSError, NotImplementedError):
            self.state = LockState.UNSUPPORTED

    def release(self) -> None:
        """Release the lock if it is held."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.release()


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on a file, waiting for it as long as it takes.

    A file system without locks is not an error: lock only to avoid duplicate work or to remove leftovers, never to
    protect data.

    Args:
        path: the lock file; it is created if missing and stays.

    Yields:
        Whether the lock is held; False on a file system without locks.
    """
    with Lock(path, wait=True) as lock:
        yield lock.state is LockState.HELD
