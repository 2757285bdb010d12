"""The app's log: one line per request, and where something failed; never the contents of a request."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger("muralab.app")

_QUOTING = ("mlflow", "pydicom")
"""Packages whose warnings quote their input: column names, elements of a patient's file."""


def silence() -> None:
    """Keep warnings that quote a request out of the log."""
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _QUOTING]
    for name in (*_QUOTING, *known):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def describe(error: BaseException | None) -> str:
    """Types and tracebacks of an error and its causes, without their messages, which may quote the request."""
    pieces = []
    while error is not None:
        pieces.append("".join(traceback.format_list(traceback.extract_tb(error.__traceback__))))
        pieces.append(f"{type(error).__module__}.{type(error).__qualname__}\n")
        error = error.__cause__ or error.__context__
    return "".join(pieces)


def log_request(request: Request, response: Response, started: float, request_id: str) -> None:
    """Write the line of one request.

    Args:
        request: what was asked.
        response: what was answered.
        started: `time.perf_counter()` on arrival.
        request_id: also sent to the client.
    """
    logger.info(
        "%s %s %s %d %.0f ms, %s bytes in, %s out, from %s",
        request_id,
        request.method,
        # Undecoded: a decoded path may hold line breaks or terminal control characters.
        ascii(request.scope["raw_path"][:200].decode("latin-1"))[1:-1],
        response.status_code,
        1000 * (time.perf_counter() - started),
        request.headers.get("content-length", "?")[:20],
        response.headers.get("content-length", "?"),
        # uvicorn takes it from a proxy on this machine without a check.
        ascii(request.client.host[:60])[1:-1] if request.client else "-",
    )
