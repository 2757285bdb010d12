"""Who answers: a registered model in this process, or a server. Both take rows and give rows."""

from __future__ import annotations

import json
import math
import time
from typing import Any, Protocol

from muralab.errors import DataError, ServerError
from muralab.registry.load import load_registered

CONNECT_S = 10.0
ANSWER_S = 300.0
TRIES = 5
"""Of a request that a server is too busy for, or fails on."""
AGAIN = (408, 429)
"""Statuses below 500 that say nothing about the request."""
MAX_WAIT_S = 30.0

Row = dict[str, Any]


class Engine(Protocol):
    """Answers requests."""

    name: str
    """What it is, for people."""

    def answer(self, rows: list[Row], params: dict[str, Any]) -> list[Row]:
        """One row of answer a row.

        Raises:
            DataError: this request is refused; another may be answered.
            MuraLabError: no request can be answered.
        """
        ...


class LocalEngine:
    """A model of the registry, or a folder that holds one, in this process; needs no torch."""

    def __init__(self, model: str, tracking_uri: str) -> None:
        """Load the model.

        Args:
            model: a URI such as models:/mura-wrist@champion, or a folder.
            tracking_uri: of the store that knows it.

        Raises:
            StoreError: there is no such model, or it does not load.
        """
        self.name = model
        self._model, _ = load_registered(model, tracking_uri)

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
        """Ask once whether the server is there.

        Args:
            url: its address, with or without /invocations.
            token: what `muralab app` was started with.

        Raises:
            ServerError: no server answers there.
        """
        import requests

        self.name = url.rstrip("/").removesuffix("/invocations")
        self._session = requests.Session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._call("GET", "/ping", CONNECT_S)

    def answer(self, rows: list[Row], params: dict[str, Any]) -> list[Row]:
        """See `Engine`."""
        payload = {"dataframe_records": rows, "params": params}
        response = self._ask(payload)
        if response.status_code in (401, 403):
            raise ServerError(f"The server {self.name} refuses: {_said(response)}")
        if response.status_code != 200:
            raise DataError(_said(response))
        answers = _predictions(response)
        if answers is None or len(answers) != len(rows):
            raise ServerError(f"{self.name} answers, but not as a model of this platform does: {response.text[:200]}")
        return answers

    def _ask(self, payload: dict[str, Any]) -> Any:
        """A response; what is no fault of the request is asked for again, some times."""
        for turn in range(TRIES):
            response = self._call("POST", "/invocations", ANSWER_S, json=payload)
            if response.status_code not in AGAIN and response.status_code < 500:
                return response
            if turn < TRIES - 1:
                time.sleep(_wait_s(response, turn))
        raise ServerError(
            f"The server {self.name} answered a request with {response.status_code}, {TRIES} times: {_said(response)} "
            "Look at its log; ask again later, or with fewer pictures a request (rows)."
        )

    def _call(self, method: str, path: str, answer_s: float, **content: Any) -> Any:
        import requests

        try:
            return self._session.request(method, self.name + path, timeout=(CONNECT_S, answer_s), **content)
        except (requests.RequestException, ValueError) as error:
            raise ServerError(
                f"The server {self.name} does not answer ({type(error).__name__}). Start it (`make serve`, "
                "`make app`), correct url, or leave url out to load the model here."
            ) from error


def _wait_s(response: Any, turn: int) -> float:
    """Seconds that the server asks to wait, or 1, 2, 4 ...; never more than `MAX_WAIT_S`."""
    said = response.headers.get("Retry-After", "")
    return min(float(said) if said.isdigit() else 2.0**turn, MAX_WAIT_S)


def _predictions(response: Any) -> list[Row] | None:
    try:
        answers = response.json()["predictions"]
    except (ValueError, KeyError, TypeError):
        return None
    good = isinstance(answers, list) and all(isinstance(row, dict) and "probability" in row for row in answers)
    return answers if good else None


def _said(response: Any) -> str:
    """The server's own words, in one line, without MLflow's copy of the request."""
    try:
        message = str(json.loads(response.text)["message"])
    except (ValueError, KeyError, TypeError):
        message = response.text.strip()
    message = message.partition("\nError: ")[2] or message
    return " ".join(message.split())[:500] or f"HTTP {response.status_code}"


def is_missing(value: object) -> bool:
    """None, or a NaN that pandas put in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))
