"""What a large picture took goes back to the system, where glibc would keep it, thread by thread."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE_BYTES = 2**20
_ARENAS = 2
_LATER_S = 1.0
"""By then the server has sent the answer and dropped what it was asked and what it said."""


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
        self._is_due = False
        self._trim: Callable[[int], int] | None = None
        with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
            self._trim = ctypes.CDLL(None).malloc_trim

    def __call__(self) -> threading.Thread | None:
        """Trim in a second, on a thread of its own; returns it, or None where that is due already or cannot be done."""
        with self._lock:
            if self._trim is None or self._is_due:
                return None
            self._is_due = True
        timer = threading.Timer(_LATER_S, self._do, [self._trim])
        timer.daemon = True  # a server that ends does not wait for it
        timer.start()
        return timer

    def _do(self, trim: Callable[[int], int]) -> None:
        with self._lock:
            self._is_due = False  # what is answered from here on is for the next
        trim(0)
