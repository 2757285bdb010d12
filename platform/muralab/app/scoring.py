"""MLflow's scoring app, called within the process, with its errors mended to one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import MutableMapping
from typing import Any

from muralab.app.log import describe, logger
from muralab.app.payload import JSON, RefusalError

MAX_SENTENCE = 4000

_WRONG_TYPE = re.compile(r"type and shape for '(\w+)': (\w+)")
_TYPES = {"double": "a number", "boolean": "true or false", "string": "text"}

Message = MutableMapping[str, Any]


class Watched:
    """A model whose failures are logged and told as such: MLflow's server answers them as a client's mistake."""

    def __init__(self, model: Any) -> None:
        self._model, self.metadata = model, model.metadata

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """As the model does; MLflow's server looks at these names.

        Raises:
            MlflowException: the model refuses the request (400), or it failed (500).
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

        try:
            return self._model.predict(data, params=params)
        except MlflowException:
            raise
        except Exception as error:
            logger.error("the model failed:\n%s", describe(error))
            words = "The model failed on this request; the server's log says where."
            raise MlflowException(words, error_code=INTERNAL_ERROR) from None


async def ask(scoring: Any, body: bytes) -> bytes:
    """Answer one request.

    Args:
        scoring: the ASGI app of `mlflow.pyfunc.scoring_server.init`.
        body: JSON, checked.

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

    await scoring(_scope(len(body)), receive, send)
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


def _scope(length: int) -> Message:
    headers = [(b"content-type", JSON.encode()), (b"content-length", str(length).encode())]
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
