"""What a client may ask: bytes, time, turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from muralab.app.payload import RefusalError

if TYPE_CHECKING:
    from starlette.requests import Request

PATIENCE = 4
"""A body of up to so many times the limit is read to its end, though not kept: most clients hear nothing before."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may ask of the app."""

    max_bytes: int = 48 * 2**20
    """Of a request's body."""
    body_s: float = 60.0
    """In which a body must have arrived."""
    at_once: int = 8
    """Requests that are answered at once; all bodies in memory, arriving ones too, hold this times `max_bytes`."""
    waiting: int = 64
    """Requests that arrive or wait for their turn; one more gets 429."""


class Turns:
    """So many requests at once, so many arriving or waiting, so many bytes of bodies, no more."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._taken, self._n_bytes = limits, 0, 0

    @cached_property
    def answering(self) -> asyncio.Semaphore:
        """Held while a request is answered; not while its body arrives, since that may be slow."""
        return asyncio.Semaphore(self._limits.at_once)

    @cached_property
    def parsing(self) -> asyncio.Semaphore:
        """Held while a body is parsed: that may take several times its size."""
        return asyncio.Semaphore(1)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Hold a place until a request is answered.

        Raises:
            RefusalError: too many requests are here; 429.
        """
        if self._taken >= self._limits.at_once + self._limits.waiting:
            raise _busy()
        self._taken += 1
        place = Place(self)
        try:
            yield place
        finally:
            self._taken -= 1
            self._n_bytes -= place.n_bytes

    def hold(self, n_bytes: int) -> None:
        """Count bytes of a body.

        Raises:
            RefusalError: the bodies of all requests are too large together; 429.
        """
        if self._n_bytes + n_bytes > max(1, self._limits.at_once) * self._limits.max_bytes:
            raise _busy()
        self._n_bytes += n_bytes


class Place:
    """A request that has been let in."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self.n_bytes = turns, 0

    def hold(self, n_bytes: int) -> None:
        """Count bytes of its body; given back with the place."""
        self._turns.hold(n_bytes)
        self.n_bytes += n_bytes


async def read_body(request: Request, limits: Limits, place: Place) -> bytes:
    """A request's body.

    Raises:
        RefusalError: it is too large (413), too slow (408), or there is no room for it now (429).
    """
    too_large = RefusalError(413, f"The body is larger than {limits.max_bytes:,} bytes; send fewer views at once.")
    claimed = request.headers.get("content-length", "0")[:20]
    if claimed.isdigit() and int(claimed) > PATIENCE * limits.max_bytes:
        raise too_large
    body, n_bytes = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():  # a chunked body claims no length, so all are measured
                n_bytes += len(chunk)
                if n_bytes <= limits.max_bytes:
                    place.hold(len(chunk))
                    body += chunk
                else:
                    body = bytearray()
                if n_bytes > PATIENCE * limits.max_bytes:
                    break
    except TimeoutError:
        if n_bytes <= limits.max_bytes:
            raise RefusalError(408, f"The body did not arrive within {limits.body_s:g} s.") from None
    if n_bytes > limits.max_bytes:
        raise too_large
    return bytes(body)


def _busy() -> RefusalError:
    return RefusalError(429, "Too many requests are waiting; ask again in some seconds.")
