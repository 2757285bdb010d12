"""Locks between processes, where the file system has them and where it does not."""

from __future__ import annotations

import errno
import fcntl

import pytest

from muralab.locks import Lock, LockState, locked


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


def test_a_lock_that_another_process_holds_is_taken(tmp_path):
    path = tmp_path / "a.lock"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Lock(path) as lock:
            assert lock.state is LockState.TAKEN
        assert not is_free(path)
    with Lock(path) as lock:
        assert lock.state is LockState.HELD
        assert not is_free(path)
    assert is_free(path)


def test_a_lock_file_that_cannot_be_created_is_not_taken_by_another(tmp_path):
    (tmp_path / "file").touch()
    assert Lock(tmp_path / "file" / "a.lock").state is LockState.UNSUPPORTED


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("wait", [True, False])
def test_a_file_system_without_locks_is_not_an_error(tmp_path, break_locks, number, wait):
    break_locks(number)
    with Lock(tmp_path / "a.lock", wait=wait) as lock:
        assert lock.state is LockState.UNSUPPORTED
    with locked(tmp_path / "a.lock") as held:
        assert not held
