"""Limits on clients: size and duration of a body, requests at once, duration of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.requests import Request

READ_FACTOR = 4
"""A body of up to this many times the limit is read to its end and dropped: most clients read no answer before that."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may ask of the app."""

    max_bytes: int = 48 * 2**20
    """Size of a request's body."""
    body_s: float = 60.0
    """Time in which a body must arrive."""
    answer_s: float = 60.0
    """Time after which a client that waits for the model gets 504; the model's work itself is not cut off."""
    at_once: int = 8
    """Requests answered at once. All bodies in memory, arriving ones included, hold this times `max_bytes`."""
    waiting: int = 64
    """Requests that arrive or wait for their turn; one more gets 429."""


class Turns:
    """Bounds the requests answered at once, those arriving or waiting, and the bytes of all bodies in memory."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._n_requests, self._n_bytes = limits, 0, 0

    @cached_property
    def answering(self) -> asyncio.Semaphore:
        """Held while a request is answered, but not while its body arrives, which may be slow."""
        return asyncio.Semaphore(self._limits.at_once)

    @cached_property
    def parsing(self) -> asyncio.Semaphore:
        """Held while a body is parsed, which may take several times its size in memory."""
        return asyncio.Semaphore(1)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Hold a place until a request is answered.

        Raises:
            HTTPException: 429, all places are taken.
        """
        if self._n_requests >= self._limits.at_once + self._limits.waiting:
            raise _busy()
        self._n_requests += 1
        place = Place(self)
        try:
            yield place
        finally:
            self._n_requests -= 1
            self._n_bytes -= place.n_bytes

    def hold(self, n_bytes: int) -> None:
        """Count bytes of a body.

        Raises:
            HTTPException: 429, the bodies of all requests are too large together.
        """
        if self._n_bytes + n_bytes > max(1, self._limits.at_once) * self._limits.max_bytes:
            raise _busy()
        self._n_bytes += n_bytes


class Place:
    """Held by one request that has been admitted."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self.n_bytes = turns, 0

    def hold(self, n_bytes: int) -> None:
        """Count bytes of its body, which are freed with the place."""
        self._turns.hold(n_bytes)
        self.n_bytes += n_bytes


async def read_body(request: Request, limits: Limits, place: Place) -> bytes:
    """Read the body of a request.

    Raises:
        HTTPException: 413, it is too large; 408, it is too slow; 429, there is no memory for it now.
    """
    too_large = HTTPException(413, f"The body is larger than {limits.max_bytes:,} bytes; send fewer views at once.")
    declared = request.headers.get("content-length", "0")[:20]
    if declared.isdigit() and int(declared) > READ_FACTOR * limits.max_bytes:
        raise too_large
    body, n_bytes = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():  # a chunked body declares no length, so every body is measured
                n_bytes += len(chunk)
                if n_bytes <= limits.max_bytes:
                    place.hold(len(chunk))
                    body += chunk
                else:
                    body = bytearray()
                if n_bytes > READ_FACTOR * limits.max_bytes:
                    break
    except TimeoutError:
        if n_bytes <= limits.max_bytes:
            raise HTTPException(408, f"The body did not arrive within {limits.body_s:g} s.") from None
    if n_bytes > limits.max_bytes:
        raise too_large
    return bytes(body)


def _busy() -> HTTPException:
    return HTTPException(429, "Too many requests are waiting; try again in a few seconds.")
