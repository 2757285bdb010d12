"""Engines: a registered model in this process, or a server. Both take rows and return rows."""

from __future__ import annotations

import json
import math
import time
from typing import Any, Protocol

from muralab.errors import DataError, ServerError
from muralab.registry.load import load_registered

CONNECT_S = 10.0
ANSWER_S = 300.0
MAX_ATTEMPTS = 5
"""Attempts per request while the server is busy or fails."""
RETRY_STATUSES = (408, 429)
"""Statuses below 500 that are not the fault of the request."""
MAX_WAIT_S = 30.0

Row = dict[str, Any]


class Engine(Protocol):
    """Answers requests."""

    name: str
    """Shown to the user."""

    def answer(self, rows: list[Row], params: dict[str, Any]) -> list[Row]:
        """One answer per row.

        Raises:
            DataError: this request is refused; others may be answered.
            MuraLabError: no request can be answered.
        """
        ...


class LocalEngine:
    """A registered model, or a model folder, in this process. Does not need torch."""

    def __init__(self, model: str, tracking_uri: str, registry_uri: str = "") -> None:
        """Load the model.

        Args:
            model: a URI such as models:/mura-wrist@champion, or a folder.
            tracking_uri: store that holds it.
            registry_uri: of the model registry; empty: the store's own.

        Raises:
            StoreError: the model does not exist or does not load.
        """
        self.name = model
        self._model, _ = load_registered(model, tracking_uri, registry_uri)

    def answer(self, rows: list[Row], params: dict[str, Any]) -> list[Row]:
        """See `Engine`."""
        import pandas as pd
        from mlflow.exceptions import MlflowException

        try:
            table = self._model.predict(pd.DataFrame(rows), params=params)
        except MlflowException as error:
            raise DataError(str(error.message)) from None
        return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


class ServerEngine:
    """`mlflow models serve` or `muralab app`, on any machine."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Check that the server answers.

        Args:
            url: address of the server, with or without /invocations.
            token: bearer token that the server requires.

        Raises:
            ServerError: the server does not answer.
        """
        import requests

        self.name = url.rstrip("/").removesuffix("/invocations")
        self._session = requests.Session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._call("GET", "/ping", CONNECT_S)

    def answer(self, rows: list[Row], params: dict[str, Any]) -> list[Row]:
        """See `Engine`."""
        response = self._post({"dataframe_records": rows, "params": params})
        if response.status_code in (401, 403):
            raise ServerError(f"The server {self.name} refuses access: {_error_text(response)}")
        if response.status_code != 200:
            raise DataError(_error_text(response))
        answers = _predictions(response)
        if answers is None or len(answers) != len(rows):
            raise ServerError(
                f"{self.name} does not serve a model of this platform; it answered: {response.text[:200]}"
            )
        return answers

    def _post(self, payload: dict[str, Any]) -> Any:
        """Send a request, again while the server is busy or fails."""
        for attempt in range(MAX_ATTEMPTS):
            response = self._call("POST", "/invocations", ANSWER_S, json=payload)
            if response.status_code not in RETRY_STATUSES and response.status_code < 500:
                return response
            if attempt < MAX_ATTEMPTS - 1:
                time.sleep(_wait_s(response, attempt))
        raise ServerError(
            f"The server {self.name} answered a request with {response.status_code} {MAX_ATTEMPTS} times: "
            f"{_error_text(response)} Check its log; try again later, or with fewer images per request (rows)."
        )

    def _call(self, method: str, path: str, answer_s: float, **content: Any) -> Any:
        import requests

        try:
            return self._session.request(method, self.name + path, timeout=(CONNECT_S, answer_s), **content)
        except (requests.RequestException, ValueError) as error:
            raise ServerError(
                f"The server {self.name} does not answer ({type(error).__name__}). Start it (`make serve`, "
                "`make app`), correct url, or omit url to load the model in this process."
            ) from error


def _wait_s(response: Any, attempt: int) -> float:
    """Seconds from the Retry-After header, else 1, 2, 4 ...; at most `MAX_WAIT_S`."""
    wanted = response.headers.get("Retry-After", "")
    return min(float(wanted) if wanted.isdigit() else 2.0**attempt, MAX_WAIT_S)


def _predictions(response: Any) -> list[Row] | None:
    try:
        answers = response.json()["predictions"]
    except (ValueError, KeyError, TypeError):
        return None
    good = isinstance(answers, list) and all(isinstance(row, dict) and "probability" in row for row in answers)
    return answers if good else None


def _error_text(response: Any) -> str:
    """Error message of the server in one line, without MLflow's copy of the request."""
    try:
        message = str(json.loads(response.text)["message"])
    except (ValueError, KeyError, TypeError):
        message = response.text.strip()
    message = message.partition("\nError: ")[2] or message
    return " ".join(message.split())[:500] or f"HTTP {response.status_code}"


def is_missing(value: object) -> bool:
    """Whether a value is None, or the NaN that pandas stores for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))
