"""One process at a time works on a sweep: a lock that a dead process releases, on this host or on another.

The kernel's lock on a file is released with its process, but many network file systems share no locks between hosts.
So the owner also renews the time stamp of a second file; another host, where its process cannot be looked up, takes
over when the stamp is old.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from muralab.atomic import atomic_path
from muralab.errors import SettingsError
from muralab.locks import Lock, LockState
from muralab.tracking.process import is_alive, is_gone, process_tags
from muralab.tracking.tags import Tag

LOCK = "lock"
OWNER = "owner.json"
RENEW_S = 10.0
EXPIRES_S = 90.0
"""The stamp of a live owner is never this old, and a shared file system shows it by then."""
IDENTITY = (Tag.HOST, Tag.PID, Tag.PROCESS_STARTED)


@contextmanager
def sweep_lock(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a sweep.

    Args:
        folder: the sweep's own.
        run_id: for the error message.

    Raises:
        SettingsError: another process works on this sweep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder / LOCK) as lock:
        if lock.state is LockState.TAKEN or is_owned_elsewhere(folder):
            owner = _read_owner(folder / OWNER) or {}
            may_be_dead = owner.get(Tag.HOST, socket.gethostname()) != socket.gethostname()
            raise busy_error(owner, run_id, may_be_dead=may_be_dead)
        with _renewed(folder / OWNER):
            yield


def is_locked(folder: Path) -> bool:
    """Whether a live process works on a sweep."""
    if not (folder / LOCK).exists():
        return False
    with Lock(folder / LOCK) as lock:
        return lock.state is LockState.TAKEN or is_owned_elsewhere(folder)


def is_owned_elsewhere(folder: Path) -> bool:
    """Whether another process has the sweep although its lock is free: on another host, or without locks."""
    owner = _read_owner(folder / OWNER)
    if owner is None or owner == own_identity():
        return False
    if owner.get(Tag.HOST) == socket.gethostname() and is_gone(owner):
        return False
    return is_alive(owner) or _age_s(folder / OWNER) < EXPIRES_S


def own_identity() -> dict[str, str]:
    """What tells this process from every other one, on any host."""
    tags = process_tags()
    return {name: tags[name] for name in IDENTITY}


def _read_owner(file: Path) -> dict[str, str] | None:
    try:
        return parse_owner(file.read_bytes())
    except OSError:
        return None


def parse_owner(content: bytes) -> dict[str, str] | None:
    """The owner that a file names; None if it is damaged."""
    try:
        return {str(key): str(value) for key, value in json.loads(content).items()}
    except (ValueError, AttributeError):
        return None


def _age_s(file: Path) -> float:
    """Seconds since a file was renewed, by the clock of its own file system."""
    now = file.with_name(f".now-{socket.gethostname()}-{os.getpid()}")
    try:
        now.touch()
        return now.stat().st_mtime - file.stat().st_mtime
    finally:
        now.unlink(missing_ok=True)


@contextmanager
def _renewed(file: Path) -> Iterator[None]:
    """Write who owns the sweep, and renew the file's time stamp from a thread."""
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(own_identity()), encoding="utf-8")
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_S):
            with contextlib.suppress(OSError):
                os.utime(file)

    threading.Thread(target=renew, daemon=True, name="sweep-lock").start()
    try:
        yield
    finally:
        ended.set()
        file.unlink(missing_ok=True)


def busy_error(owner: Mapping[str, str], run_id: str, *, may_be_dead: bool) -> SettingsError:
    """Why a sweep that another process works on is not resumed."""
    where = f"process {owner.get(Tag.PID, 'unknown')} on {owner.get(Tag.HOST, 'an unknown host')}"
    text = f"resume={run_id}: this sweep is being run by {where}. Wait for it, or interrupt it first."
    if may_be_dead:
        text += f" If that process is dead, try again in {EXPIRES_S:.0f} s."
    return SettingsError(text)
