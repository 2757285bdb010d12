"""Return the memory of large images to the system; glibc would keep it, separately for each thread."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE_BYTES = 2**20
_ARENAS = 2
_LATER_S = 1.0
"""By then the server has sent the answer and released the request and the answer."""


def give_memory_back() -> bool:
    """Make glibc map each buffer of 1 MiB or more separately, and use two heaps for all threads.

    Returns:
        Whether the settings were applied; False where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)) and bool(mallopt(_M_ARENA_MAX, _ARENAS))


class Trimmer:
    """Releases free memory between small objects in use; without it the heaps grow for hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_due = False
        self._trim: Callable[[int], int] | None = None
        with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
            self._trim = ctypes.CDLL(None).malloc_trim

    def __call__(self) -> threading.Thread | None:
        """Trim after a second on another thread; None if one is already waiting, or if the C library cannot."""
        with self._lock:
            if self._trim is None or self._is_due:
                return None
            self._is_due = True
        timer = threading.Timer(_LATER_S, self._do, [self._trim])
        timer.daemon = True  # a server that stops does not wait for it
        timer.start()
        return timer

    def _do(self, trim: Callable[[int], int]) -> None:
        with self._lock:
            self._is_due = False  # answers from here on need the next one
        trim(0)
