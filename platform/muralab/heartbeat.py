"""Signs of life of a process that trains: a file whose time stamp shows when it last made a step.

The process that trains calls `start_heartbeat` once and `beat` in every loop over batches; whoever watches it reads
the file. A command that trains in its own process hears of every beat instead (`listen`). Without either, `beat` does
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

HEARTBEAT = "heartbeat"
"""The file's name in a trial's folder."""
BEAT_EVERY_S = 1.0
"""A time stamp is written at most this often: a step can take a millisecond."""

Listener = Callable[[str, int, int], None]
"""(what is done, how many so far, how many in all)"""
_listener: Listener | None = None
_file: Path | None = None
_written_s = 0.0


def start_heartbeat(file: Path) -> None:
    """Write this process's id to a file, whose time stamp `beat` renews from now on; its folder is created."""
    global _file, _written_s
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(os.getpid()), encoding="ascii")
    _file, _written_s = file, time.monotonic()


def listen(listener: Listener | None) -> None:
    """Call a function at every beat of this process from now on; None ends that."""
    global _listener
    _listener = listener


def beat(what: str, done: int, total: int) -> None:
    """A step was made.

    Args:
        what: is done, in a few words.
        done: how many so far.
        total: how many in all.
    """
    global _written_s
    if _listener is not None:
        _listener(what, done, total)
    now = time.monotonic()
    if _file is None or now - _written_s < BEAT_EVERY_S:
        return
    _written_s = now
    try:
        os.utime(_file)
    except OSError:  # the folder was removed: the sweep has ended
        return


def read_heartbeat(file: Path) -> tuple[int, float] | None:
    """The process that beats and the Unix time of its last beat; None before its first."""
    try:
        return int(file.read_text(encoding="ascii")), file.stat().st_mtime
    except (OSError, ValueError):
        return None
