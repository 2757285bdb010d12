"""One command at a time works on a sweep in a storage, on whichever machine: its claim is a file there that it renews.

An object store has no locks, so a claim is written and read again a little later: of two commands that claim a sweep
at once the later write counts, and the other one is refused. A claim that has not been renewed for a while is taken
over; should its command only have been asleep, it finds out before it writes much, and leaves the sweep.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Self

from muralab.errors import StorageMissingError, StorageUnavailableError, SweepTakenError
from muralab.storage import CHECK_S, Storage
from muralab.time_limit import within
from muralab.tracking.process import is_alive, is_gone
from muralab.tracking.tags import Tag
from muralab.tune.sweep_lock import EXPIRES_S, OWNER, RENEW_S, busy_error, own_identity, parse_owner

SETTLE_S = 3.0
"""Longer than another command takes between its look for a claim and its own."""
STOP_S = 5.0
"""How long the end of a command waits for a renewal that is under way."""
LOOK_S = 1.0
"""How often the thread looks at the clock: after a machine has slept, the claim is read again at once."""


class SweepOwner:
    """A claim on a sweep; a context manager that gives it up."""

    def __init__(self, storage: Storage, folder: str, run_id: str, *, is_new: bool = False) -> None:
        """Claim nothing yet.

        Args:
            storage: that holds the sweep.
            folder: of the sweep there.
            run_id: of the sweep.
            is_new: whether nobody else can know of this sweep.
        """
        self._storage, self._file, self._run_id, self._is_new = storage, f"{folder}/{OWNER}", run_id, is_new
        self._identity = own_identity()
        self._ended = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._keep, daemon=True, name="sweep-owner")

    def __enter__(self) -> Self:
        """Claim the sweep.

        Raises:
            SettingsError: another command works on it.
            StorageError: the storage cannot be read or written.
        """
        if not self._is_new:
            self._refuse_other()
        try:
            self._write()
            if not self._is_new:
                time.sleep(SETTLE_S)
                self._refuse_other()
        except BaseException:
            self.__exit__(None, None, None)  # or the next command would be refused until this claim has expired
            raise
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()
        if self._thread.is_alive():  # the storage does not answer: a claim that is not renewed expires by itself
            return
        with contextlib.suppress(Exception):
            within(CHECK_S, self._give_up)

    def _give_up(self) -> None:
        if self._is_ours(self._read()):
            self._storage.remove(self._file)

    def stop(self) -> None:
        """Renew the claim no longer: the sweep's folder is about to be removed."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def require(self) -> None:
        """Make sure that the sweep is still this command's.

        Raises:
            SweepTakenError: another command has taken it over, or has ended it.
        """
        if self._lost:
            raise SweepTakenError(self._lost)

    def _keep(self) -> None:
        """Renew the claim until it is given up or lost; a storage that does not answer is asked again."""
        held_s = renewed_s = time.time()  # unlike the monotonic clock, it goes on while the machine sleeps
        while not self._ended.wait(LOOK_S):
            if 0 <= time.time() - renewed_s < RENEW_S:
                continue
            with contextlib.suppress(Exception):  # of whatever package opens the storage
                self._lost = self._why_lost(self._read(), time.time() - held_s)
                if self._lost:
                    return
                if not self._ended.is_set():
                    self._write()
                held_s = time.time()
            renewed_s = time.time()

    def _why_lost(self, owner: dict[str, str] | None, age_s: float) -> str:
        """Why the sweep is no longer this command's; empty where it is.

        Args:
            owner: whom the claim in the storage names; None where it is gone.
            age_s: since this command has renewed it, which nobody takes over before it expires.

        Raises:
            StorageError: that cannot be found out now.
        """
        if owner is None and not self._storage.folders(""):
            raise StorageUnavailableError(f"storage={self._storage.uri} is empty: is it mounted?")
        if self._is_ours(owner) or (owner is None and age_s < EXPIRES_S):
            return ""
        what = "has worked on and ended or left" if owner is None else "has taken over"
        return (
            f"Another command {what} the sweep {self._run_id}, since this one did not renew its claim in "
            f"{self._storage.uri} for {EXPIRES_S:.0f} s (was this machine asleep, or cut off from the storage?). "
            "This command ends and leaves the sweep as it is."
        )

    def _refuse_other(self) -> None:
        owner = self._read()
        if owner is None or self._is_ours(owner) or _is_dead(owner):
            return
        if is_alive(owner) or self._age_s(owner) < EXPIRES_S:
            raise busy_error(owner, self._run_id, may_be_dead=not is_alive(owner))

    def _is_ours(self, owner: dict[str, str] | None) -> bool:
        return owner is not None and {name: owner.get(name) for name in self._identity} == self._identity

    def _read(self) -> dict[str, str] | None:
        try:
            return parse_owner(self._storage.read(self._file))
        except StorageMissingError:
            return None

    def _write(self) -> None:
        self._storage.write(self._file, json.dumps({**self._identity, "renewed_s": time.time()}).encode())

    def _age_s(self, owner: dict[str, str]) -> float:
        """Seconds since a claim was renewed, by the storage's clock; by those of both machines if it reports none."""
        now = f"{self._file}-now-{uuid.uuid4().hex[:8]}"
        self._storage.write(now, b"now")
        try:
            times = {one.name: one.modified_ns for one in self._storage.look_up([self._file, now])}
        finally:
            self._storage.remove(now)
        if not {self._file, now} <= times.keys():
            return math.inf
        if not times[self._file]:
            return time.time() - float(owner.get("renewed_s", 0.0))
        return (times[now] - times[self._file]) / 1e9


def _is_dead(owner: dict[str, str]) -> bool:
    """Whether the process of a claim is known to have ended: one of this machine, not only of this host's name."""
    boots = {one.get(Tag.PROCESS_STARTED, "").partition(".")[0] for one in (owner, own_identity())}
    return owner.get(Tag.HOST) == socket.gethostname() and len(boots) == 1 and is_gone(owner)
