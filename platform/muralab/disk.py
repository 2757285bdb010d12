"""Disks that are full or read-only: recognised in any library's error, and named."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXTS = ("no space left on device", "disk quota exceeded", "os error 28", "os error 122", "disk is full")
READ_ONLY_TEXTS = ("read-only file system", "os error 30", "readonly database")


def disk_problem(error: BaseException, place: Path | None = None) -> str | None:
    """What a full or read-only disk caused, as a sentence with the fix; None for any other error.

    Args:
        error: as raised; its causes are searched too. Not every library raises OSError: safetensors and SQLite state
            the system's message in a class of their own.
        place: what was being written, where the error does not name it.
    """
    for one in _with_causes(error):
        kind = _kind(one)
        if kind:
            return _sentence(kind, _named_file(one) or (str(place) if place else ""))
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _kind(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    text = str(error).lower()
    if number in FULL or any(part in text for part in FULL_TEXTS):
        return "full"
    if number == errno.EROFS or any(part in text for part in READ_ONLY_TEXTS):
        return "read-only"
    return ""


def _named_file(error: BaseException) -> str:
    return str(error.filename) if isinstance(error, OSError) and error.filename else ""


def _sentence(kind: str, place: str) -> str:
    where = f" at {place}" if place else ""
    if kind == "read-only":
        return f"The disk is read-only{where}. Make it writable, or give a folder on another disk, and try again."
    return f"The disk is full{where}. Free some space and try again."


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk of a folder, which need not exist yet."""
    existing = next(one for one in (folder, *folder.parents) if one.is_dir())
    return shutil.disk_usage(existing).free
