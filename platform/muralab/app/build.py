"""The app: the served model behind limits, plain errors and, if given, a token, and a web page."""

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
from muralab.app.payload import CheckedRequest, build_params_type, read_request
from muralab.app.scoring import answer

Endpoint = Callable[[Request], Awaitable[Response]]

_ERROR_CODES = {
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
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build_app(model: Any, about: dict[str, Any], *, token: str | None = None, limits: Limits | None = None) -> Any:
    """Wrap a model so that others may reach it.

    Args:
        model: MLflow's `PyFuncModel`.
        about: what `/about` answers: name and version, calibration, disclaimer.
        token: the bearer token that clients must send; None: none.
        limits: what a client may ask.

    Returns:
        An ASGI app with `/` (the page), `/about`, `/invocations`, `/ping`, `/health` and `/version`.
    """
    from mlflow.version import VERSION

    limits = limits or Limits()
    turns, params_type = Turns(limits), build_params_type(model.metadata.get_params_schema())
    page, policy = read_page()

    async def invocations(request: Request) -> Response:
        with turns.place() as place:
            body = await read_body(request, limits, place)
            async with turns.answering:
                async with turns.parsing:
                    content_type = request.headers.get("content-type")
                    checked = await asyncio.to_thread(read_request, body, content_type, params_type)
                del body
                return Response(await _answer_in_time(model, checked, limits), media_type="application/json")

    async def show_page(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def show_about(_: Request) -> Response:
        return JSONResponse({**about, "max_bytes": limits.max_bytes})

    async def ping(_: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def version(_: Request) -> Response:
        return Response(VERSION, media_type="application/json")

    public = [("/", show_page), ("/ping", ping), ("/health", ping)]
    guarded = [("/about", show_about), ("/version", version)]
    routes = [
        *(Route(path, _guard(endpoint, None)) for path, endpoint in public),
        *(Route(path, _guard(endpoint, token)) for path, endpoint in guarded),
        Route("/invocations", _guard(invocations, token), methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown_route})
    app.router.redirect_slashes = False  # answer 404 with a message rather than an empty 307
    return app


def read_page() -> tuple[str, str]:
    """The page, and a content security policy that runs only the page's own script and style."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    rules = ["default-src 'none'", "connect-src 'self'", "img-src data: blob:", "base-uri 'none'", "form-action 'none'"]
    for tag in ("script", "style"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        rules.append(f"{tag}-src " + " ".join(f"'sha256-{digest}'" for digest in digests))
    return page, "; ".join([*rules, "frame-ancestors 'none'"])


async def _answer_in_time(model: Any, checked: CheckedRequest, limits: Limits) -> str:
    try:
        async with asyncio.timeout(limits.answer_s):
            return await asyncio.to_thread(answer, model, checked)
    except TimeoutError:
        raise HTTPException(504, f"The model did not answer within {limits.answer_s:g} s.") from None


def _guard(endpoint: Endpoint, token: str | None) -> Endpoint:
    """Check the token of an endpoint, answer errors as JSON, and log a line without contents."""

    async def guarded(request: Request) -> Response:
        started, request_id = time.perf_counter(), _new_id()
        try:
            _check_token(request, token)
            response = await endpoint(request)
        except HTTPException as error:
            response = _error_response(error.status_code, error.detail)
        except ClientDisconnect:
            response = Response(status_code=400)
        except Exception as error:
            logger.error("request %s failed:\n%s", request_id, describe(error))
            response = _error_response(500, f"The server failed on this request; see {request_id} in its log.")
        return _finish(request, response, started, request_id)

    return guarded


def _new_id() -> str:
    """Identifies a request to its client and in the log."""
    return uuid.uuid4().hex[:12]


def _finish(request: Request, response: Response, started: float, request_id: str) -> Response:
    response.headers.update({**_HEADERS, "X-Request-ID": request_id})
    log_request(request, response, started, request_id)
    return response


def _check_token(request: Request, token: str | None) -> None:
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    is_equal = hmac.compare_digest(sent.strip().encode("utf-8", "replace"), (token or "").encode())
    if token is not None and not (is_equal and scheme.lower() == "bearer"):
        raise HTTPException(401, "The bearer token is missing or wrong: send the header Authorization: Bearer <token>.")


def _error_response(status: int, message: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Retry-After": "5"} if status == 429 else {}
    if status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    content = {"error_code": _ERROR_CODES.get(status, "INTERNAL_ERROR"), "message": message}
    return JSONResponse(content, status_code=status, headers=headers)


async def _unknown_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    problem = f"does not accept {request.method}" if status == 405 else "does not exist"
    message = f"{request.url.path[:80]} {problem}; available are GET /, GET /about and POST /invocations."
    return _finish(request, _error_response(status, message), time.perf_counter(), _new_id())
