"""The app: MLflow's scoring behind a token, limits and plain errors, and the page beside it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from muralab.app.payload import RefusalError, check_body
from muralab.app.scoring import ask

Endpoint = Callable[[Request], Awaitable[Response]]

_logger = logging.getLogger("muralab.app")

_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "TOO_MANY_REQUESTS",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may ask of the app."""

    max_bytes: int = 48 * 2**20
    """Of a request's body."""
    body_s: float = 60.0
    """In which a body must have arrived."""
    at_once: int = 8
    """Requests whose bodies are in memory."""
    waiting: int = 64
    """Requests that wait for their turn; one more gets 429."""


class Turns:
    """So many requests at once, so many waiting, no more."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._taken = limits, 0

    @cached_property
    def _free(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self._limits.at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn.

        Raises:
            RefusalError: too many are waiting; 429.
        """
        if self._taken >= self._limits.at_once + self._limits.waiting:
            raise RefusalError(429, "Too many requests are waiting; ask again in some seconds.")
        self._taken += 1
        try:
            async with self._free:
                yield
        finally:
            self._taken -= 1


def build_app(model: Any, about: dict[str, Any], *, token: str | None = None, limits: Limits | None = None) -> Any:
    """Wrap a model for exposure.

    Args:
        model: MLflow's `PyFuncModel`.
        about: what `/about` tells: name and version, calibration, disclaimer.
        token: clients must send it as a bearer token; None: no token.
        limits: what a client may ask.

    Returns:
        An ASGI app with `/` (the page), `/about`, `/invocations`, `/ping`, `/health` and `/version`.
    """
    from mlflow.pyfunc import scoring_server
    from mlflow.version import VERSION

    limits = limits or Limits()
    scoring, turns = scoring_server.init(model), Turns(limits)
    schema = model.metadata.get_params_schema()
    params = [spec.name for spec in schema.params] if schema else []
    page, policy = read_page()

    async def invocations(request: Request) -> Response:
        async with turns.turn():
            body = await _read_body(request, limits)
            content_type = request.headers.get("content-type")
            check_body(body, content_type, params)
            return Response(await ask(scoring, body, str(content_type)), media_type="application/json")

    async def show_page(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def tell(_: Request) -> Response:
        return JSONResponse({**about, "max_bytes": limits.max_bytes})

    async def ping(_: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def version(_: Request) -> Response:
        return Response(VERSION, media_type="application/json")

    open_to_all = [("/", show_page), ("/ping", ping), ("/health", ping)]
    guarded = [("/about", tell), ("/version", version)]
    routes = [
        *(Route(path, _answering(endpoint, None)) for path, endpoint in open_to_all),
        *(Route(path, _answering(endpoint, token)) for path, endpoint in guarded),
        Route("/invocations", _answering(invocations, token), methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_page})


def read_page() -> tuple[str, str]:
    """The page, and the content security policy that lets nothing run but what is in it."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    rules = ["default-src 'none'", "connect-src 'self'", "img-src data: blob:", "base-uri 'none'", "form-action 'none'"]
    for tag in ("script", "style"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        rules.append(f"{tag}-src " + " ".join(f"'sha256-{digest}'" for digest in digests))
    return page, "; ".join([*rules, "frame-ancestors 'none'"])


def _answering(endpoint: Endpoint, token: str | None) -> Endpoint:
    """An endpoint with its token checked, its refusals in JSON, and a line in the log without contents."""

    async def answer(request: Request) -> Response:
        started, number = time.perf_counter(), uuid.uuid4().hex[:12]
        try:
            _check_token(request, token)
            response = await endpoint(request)
        except RefusalError as refusal:
            response = _refused(refusal.status, refusal.message)
        except ClientDisconnect:
            response = Response(status_code=400)
        except Exception:
            _logger.exception("request %s failed", number)
            response = _refused(500, f"The server failed on this request; its log has the details under {number}.")
        response.headers.update({**_HEADERS, "X-Request-ID": number})
        _log(request, response, started, number)
        return response

    return answer


_PATIENCE = 4
"""A body of up to so many times the limit is read to its end, though not kept: most clients hear nothing before."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _log(request: Request, response: Response, started: float, number: str) -> None:
    client = request.client.host if request.client else "-"
    _logger.info(
        "%s %s %s %d %.0f ms, %s bytes in, %s out, from %s",
        number,
        request.method,
        request.url.path,
        response.status_code,
        1000 * (time.perf_counter() - started),
        request.headers.get("content-length", "?")[:20],
        response.headers.get("content-length", "?"),
        client,
    )


def _check_token(request: Request, token: str | None) -> None:
    given = request.headers.get("authorization", "").encode("utf-8", "replace")
    if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise RefusalError(401, "A bearer token is needed: send the header Authorization: Bearer <token>.")


async def _read_body(request: Request, limits: Limits) -> bytes:
    too_large = RefusalError(413, f"The body is larger than {limits.max_bytes:,} bytes; send fewer views at once.")
    patience = _PATIENCE * limits.max_bytes
    claimed = request.headers.get("content-length", "0")[:20]
    if claimed.isdigit() and int(claimed) > patience:
        raise too_large
    body, n_bytes = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():  # a chunked body claims no length, so all are measured
                n_bytes += len(chunk)
                if n_bytes <= limits.max_bytes:
                    body += chunk
                else:
                    body.clear()
                if n_bytes > patience:
                    break
    except TimeoutError:
        if n_bytes <= limits.max_bytes:
            raise RefusalError(408, f"The body did not arrive within {limits.body_s:g} s.") from None
    if n_bytes > limits.max_bytes:
        raise too_large
    return bytes(body)


def _refused(status: int, message: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Retry-After": "5"} if status == 429 else {}
    if status in (408, 413):
        headers["Connection"] = "close"  # what is left of the body is not read
    return JSONResponse(
        {"error_code": _CODES.get(status, "INTERNAL_ERROR"), "message": message}, status_code=status, headers=headers
    )


async def _no_such_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = "is asked with another method" if status == 405 else "does not exist"
    response = _refused(status, f"{request.url.path[:80]} {what}; there are GET /, GET /about and POST /invocations.")
    response.headers.update(_HEADERS)
    return response
