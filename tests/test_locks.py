"""Locks between processes, where the file system has them and where it does not."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from muralab.locks import locked


def is_free(path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_lock_is_held_until_the_end(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path) as held:
        assert held
        assert not is_free(path)
    assert is_free(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch, number):
    def flock(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "a.lock") as held:
        assert not held
