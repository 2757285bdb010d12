"""Atomic writes: readers of a file see its old content or all of the new one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a path beside the target to write to; rename it to the target at the end, or remove it after an error.

    Threads, processes and hosts may write one target at the same time: each writes a file of its own, and the last
    rename wins. What a killed process leaves behind is named `<target>.tmp-<host>-<pid>-<thread>`.

    Args:
        target: the file to create or replace; its folder exists.
        sync: flush the new file to disk before the rename, so that not even a power cut leaves it incomplete.
    """
    with temporary_path(target) as temporary:
        yield temporary
        publish(temporary, target, sync=sync)


@contextmanager
def temporary_path(target: Path) -> Iterator[Path]:
    """Yield a path beside a target to write to, as `atomic_path` does; what was not published is removed at the end."""
    temporary = target.with_name(f"{target.name}.tmp-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, target: Path, *, sync: bool = False) -> None:
    """Rename a complete file to its target; see `atomic_path`."""
    if sync:
        _flush(temporary)
    temporary.replace(target)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
