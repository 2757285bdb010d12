"""Signs of life of a process that trains: a file whose time stamp shows when it last made a step.

The process that trains calls `start_heartbeat` once and `beat` in every loop over batches; whoever watches it reads
the file. Without `start_heartbeat`, `beat` does nothing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BEAT_EVERY_S = 1.0
"""A time stamp is written at most this often: a step can take a millisecond."""

_file: Path | None = None
_written_s = 0.0


def start_heartbeat(file: Path) -> None:
    """Write this process's id to a file, whose time stamp `beat` renews from now on; its folder is created."""
    global _file, _written_s
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(os.getpid()), encoding="ascii")
    _file, _written_s = file, time.monotonic()


def beat() -> None:
    """A step was made."""
    global _written_s
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
