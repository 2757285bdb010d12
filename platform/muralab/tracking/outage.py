"""Outages of a tracking store: retries, and what the user is told while it does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from muralab.console import format_duration
from muralab.redaction import redact
from muralab.tracking.failures import is_temporary, reason_of

LOG = logging.getLogger("muralab.tracking")
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
ANNOUNCED_AFTER_S = 3.0
"""A shorter outage is not worth a line."""
PATIENCE_S = 900.0
"""How long a command waits for a store before it gives up what it cannot do without it."""
T = TypeVar("T")


class Outage:
    """Whether a store answers. Announces once when it has stopped and once when it is back; for any thread."""

    def __init__(self, uri: str) -> None:
        self._uri, self._lock = uri, threading.Lock()
        self._since_s: float | None = None
        self._announced = False

    @property
    def since_s(self) -> float | None:
        """When it began, on the monotonic clock; None while the store answers."""
        return self._since_s

    def failed(self, error: BaseException) -> None:
        """The store did not answer."""
        with self._lock:
            now = time.monotonic()
            self._since_s = now if self._since_s is None else self._since_s
            if self._announced or now - self._since_s < ANNOUNCED_AFTER_S:
                return
            self._announced = True
        LOG.warning(
            "The tracking store %s does not answer (%s). Training goes on; what is to be written is kept on disk "
            "until it answers.",
            redact(self._uri),
            reason_of(error),
        )

    def answered(self) -> None:
        """The store answered."""
        if self._since_s is None:
            return
        with self._lock:
            lasted_s = time.monotonic() - (self._since_s or time.monotonic())
            announced, self._announced, self._since_s = self._announced, False, None
        if announced:
            LOG.warning("The tracking store answers again, after %s.", format_duration(lasted_s))


_outages: dict[str, Outage] = {}


def outage_of(uri: str) -> Outage:
    """The outage of a store in this process, shared by everything that reads or writes it."""
    return _outages.setdefault(uri, Outage(uri))


class Pauses:
    """Seconds to wait before the next attempt: doubled each time, up to a limit."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        """The next pause."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_PAUSE_S)
        return min(pause_s, LONGEST_PAUSE_S)


def retried(call: Callable[[], T], *, outage: Outage, patience_s: float) -> T:
    """The result of a call that may be repeated; temporary failures are retried.

    Args:
        call: without arguments.
        outage: of the store that it asks.
        patience_s: how long to try.

    Raises:
        Exception: what the call raised, if it is permanent or lasts longer than the patience.
    """
    deadline_s, pauses = time.monotonic() + patience_s, Pauses()
    while True:
        try:
            result = call()
        except Exception as error:
            pause_s = pauses.next_s()
            if not is_temporary(error) or time.monotonic() + pause_s > deadline_s:
                raise
            outage.failed(error)
        else:
            outage.answered()
            return result
        time.sleep(pause_s)


def created_once(find: Callable[[], T | None], create: Callable[[], T], *, uri: str, patience_s: float) -> T:
    """Make something in a store once, although the answer to the request that made it may be lost.

    Args:
        find: what was made already, or None; it is asked before each attempt.
        create: makes it.
        uri: of the store.
        patience_s: how long to try.

    Raises:
        Exception: what the calls raised, if it is permanent or lasts longer than the patience.
    """

    def attempt() -> T:
        found = find()
        return create() if found is None else found

    return retried(attempt, outage=outage_of(uri), patience_s=patience_s)
