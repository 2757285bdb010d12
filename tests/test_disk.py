"""Full and read-only disks are recognised whoever reports them, and named."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from muralab.disk import disk_problem


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/c/x"), "The disk is full at /c/x."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full at /place."),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "The disk is full at /place."),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "The disk is full at /place."),
        (OSError(errno.EROFS, "Read-only file system", "/c/x"), "The disk is read-only at /c/x."),
    ],
)
def test_a_disk_is_named(error: Exception, expected: str) -> None:
    assert str(disk_problem(error, Path("/place"))).startswith(expected)


def test_a_cause_counts() -> None:
    error = ValueError("no checkpoint")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/c/x")
    assert disk_problem(error) == "The disk is full at /c/x. Free some space and try again."


def test_other_errors_are_no_disks() -> None:
    assert disk_problem(OSError(errno.ENOENT, "No such file", "/c/x")) is None
