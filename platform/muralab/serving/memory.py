"""What a large picture took goes back to the system, where glibc would keep it, thread by thread."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE_BYTES = 2**20
_ARENAS = 2


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
