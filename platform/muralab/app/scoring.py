"""MLflow's scoring app, called within the process, with its errors mended to one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import MutableMapping
from typing import Any

from muralab.app.payload import RefusalError

MAX_SENTENCE = 4000

_WRONG_TYPE = re.compile(r"type and shape for '(\w+)': (\w+)")
_TYPES = {"double": "a number", "boolean": "true or false", "string": "text"}

Message = MutableMapping[str, Any]


async def ask(scoring: Any, body: bytes, content_type: str) -> bytes:
    """Answer one request.

    Args:
        scoring: the ASGI app of `mlflow.pyfunc.scoring_server.init`.
        body: of the request, checked.
        content_type: its header.

    Returns:
        JSON text with the predictions.

    Raises:
        RefusalError: MLflow or the model refused; its words, mended.
    """
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])
    status, pieces = 500, []

    async def receive() -> Message:
        return next(sent, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            pieces.append(message.get("body", b""))

    await scoring(_scope(len(body), content_type), receive, send)
    answer = b"".join(pieces)
    if status != 200:
        raise RefusalError(status, mend(answer.decode("utf-8", "replace")))
    return answer


def mend(text: str) -> str:
    """MLflow's error -> one sentence: no stack trace, no copy of the request, no advice about MLflow 2.0."""
    try:
        stored = json.loads(text)
        message = str(stored["message"])
    except (ValueError, KeyError, TypeError):
        message = text
    if message.startswith("Failed to parse input as a Pandas DataFrame"):
        reason = message.rpartition("Error: ")[2].strip(" '\n")
        return _one_line(f"The body is no CSV table with a header line: {reason}")
    if message.startswith("Encountered an unexpected error"):
        return "The model could not answer this request; the server's log says why."
    if message.startswith(("Failed to predict data", "Failed to enforce schema")):
        message = message.rpartition("Error: ")[2] or "The model refuses this request."
    if message.startswith("Invalid parameters found"):
        wrong = [(name, _TYPES.get(kind, kind)) for name, kind in _WRONG_TYPE.findall(message)]
        message = " ".join(f"The parameter {name} must be {kind}." for name, kind in wrong) or message
    return _one_line(message.partition("IMPORTANT:")[0])


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    line = line if len(line) <= MAX_SENTENCE else f"{line[:MAX_SENTENCE]} ..."
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _scope(length: int, content_type: str) -> Message:
    headers = [(b"content-type", content_type.encode("latin-1")), (b"content-length", str(length).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/invocations",
        "raw_path": b"/invocations",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
