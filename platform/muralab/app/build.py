"""The app: MLflow's scoring behind a token, limits and plain errors, and the page beside it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from muralab.app.limits import Limits, Turns, read_body
from muralab.app.log import describe, log_request, logger
from muralab.app.payload import RefusalError, read_request
from muralab.app.scoring import Watched, ask

Endpoint = Callable[[Request], Awaitable[Response]]

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
    scoring, turns = scoring_server.init(Watched(model)), Turns(limits)
    schema = model.metadata.get_params_schema()
    params = [spec.name for spec in schema.params] if schema else []
    page, policy = read_page()

    async def invocations(request: Request) -> Response:
        with turns.place() as place:
            body = await read_body(request, limits, place)
            async with turns.answering:
                async with turns.parsing:
                    asked = await asyncio.to_thread(read_request, body, request.headers.get("content-type"), params)
                del body
                return Response(await ask(scoring, asked), media_type="application/json")

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
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_page})
    app.router.redirect_slashes = False  # an empty 307 helps nobody; a 404 in words does
    return app


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
        started, number = time.perf_counter(), _number()
        try:
            _check_token(request, token)
            response = await endpoint(request)
        except RefusalError as refusal:
            response = _refused(refusal.status, refusal.message)
        except ClientDisconnect:
            response = Response(status_code=400)
        except Exception as error:
            logger.error("request %s failed:\n%s", number, describe(error))
            response = _refused(500, f"The server failed on this request; its log has the details under {number}.")
        return _finish(request, response, started, number)

    return answer


def _number() -> str:
    """Names a request to its client and in the log."""
    return uuid.uuid4().hex[:12]


def _finish(request: Request, response: Response, started: float, number: str) -> Response:
    response.headers.update({**_HEADERS, "X-Request-ID": number})
    log_request(request, response, started, number)
    return response


_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _check_token(request: Request, token: str | None) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), (token or "").encode())
    if token is not None and not (right and scheme.lower() == "bearer"):
        raise RefusalError(401, "A bearer token is needed: send the header Authorization: Bearer <token>.")


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
    return _finish(request, response, time.perf_counter(), _number())
