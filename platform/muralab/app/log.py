"""What the app writes to its log: a line a request, and where something failed; never what a request held."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger("muralab.app")

_TALKATIVE = ("mlflow", "pydicom")
"""Their warnings quote what they were given: names of columns, elements of a patient's file."""


def silence() -> None:
    """Keep what others would write of a request's contents out of the log."""
    named = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE]
    for name in (*_TALKATIVE, *named):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def describe(error: BaseException | None) -> str:
    """Type and places of an error and its causes, without its words: these may quote the request."""
    pieces = []
    while error is not None:
        pieces.append("".join(traceback.format_list(traceback.extract_tb(error.__traceback__))))
        pieces.append(f"{type(error).__module__}.{type(error).__qualname__}\n")
        error = error.__cause__ or error.__context__
    return "".join(pieces)


def log_request(request: Request, response: Response, started: float, number: str) -> None:
    """Write a request's line.

    Args:
        request: it.
        response: its answer.
        started: `time.perf_counter()` when it came.
        number: names it to the client, too.
    """
    logger.info(
        "%s %s %s %d %.0f ms, %s bytes in, %s out, from %s",
        number,
        request.method,
        # As it came: a decoded path may hold what ends a line or colours a terminal.
        ascii(request.scope["raw_path"][:200].decode("latin-1"))[1:-1],
        response.status_code,
        1000 * (time.perf_counter() - started),
        request.headers.get("content-length", "?")[:20],
        response.headers.get("content-length", "?"),
        # A proxy's word, which uvicorn takes from this machine unchecked.
        ascii(request.client.host[:60])[1:-1] if request.client else "-",
    )
