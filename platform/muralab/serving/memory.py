"""What a large picture took goes back to the system, where glibc would keep it, thread by thread."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE_BYTES = 2**20
_ARENAS = 2
_BETWEEN_S = 2.0
"""A trim takes some milliseconds, in which other threads wait for memory."""


def give_memory_back() -> bool:
    """Have each buffer of a MiB or more mapped for itself, and all threads share two heaps.

    Returns:
        Whether it was done; where the C library is not glibc, nothing is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)) and bool(mallopt(_M_ARENA_MAX, _ARENAS))


class Trimmer:
    """Gives back what lies free between small things that are in use; without it the heaps creep up for hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_s = -_BETWEEN_S
        self._trim: Callable[[int], int] | None = None
        with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
            self._trim = ctypes.CDLL(None).malloc_trim

    def __call__(self) -> bool:
        """Trim, unless that was done just now or is under way; returns whether it was done."""
        if self._trim is None or not self._lock.acquire(blocking=False):
            return False
        try:
            if time.monotonic() - self._last_s < _BETWEEN_S:
                return False
            self._trim(0)
            self._last_s = time.monotonic()
            return True
        finally:
            self._lock.release()
