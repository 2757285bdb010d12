"""A tracking store: where it is, whether it answers, and its failures in words."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from muralab.errors import StoreError
from muralab.tracking.address import absolute_uri, shown, sqlite_path

# MLflow's own patience with a server is minutes a call; the writer has its own, and a command must answer in seconds.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a line a run, across the live table
}
SQLITE_HEADER = b"SQLite format 3"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Store:
    """A tracking store that has been reached once. Picklable: the client is made anew in each process."""

    uri: str
    """Absolute: it means the same in every working directory."""

    @property
    def client(self) -> Any:
        """The process's `MlflowClient` of this store."""
        return _build_client(self.uri)

    @property
    def is_remote(self) -> bool:
        """Whether every call crosses a network."""
        return urlsplit(self.uri).scheme in ("http", "https", "databricks")

    @property
    def sqlite_path(self) -> Path | None:
        """The database's file, or None where the store is not a sqlite file."""
        return sqlite_path(self.uri)


@functools.lru_cache(maxsize=16)
def _build_client(uri: str) -> Any:
    for name, value in MLFLOW_DEFAULTS.items():  # read when MLflow is imported, some of them at each call
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def open_store(uri: str | None = None, *, timeout_s: float = 10.0) -> Store:
    """Reach a tracking store, creating a local database's tables where they are missing.

    Args:
        uri: see `absolute_uri`.
        timeout_s: how long a server may take to answer.

    Raises:
        StoreError: what could not be reached, why, and how to mend it.
    """
    store = Store(uri=absolute_uri(uri))
    if urlsplit(store.uri).scheme == "file":
        raise StoreError(
            f"The tracking store {store.uri} is a folder of files, which MLflow no longer writes. Give a database "
            "instead, for example MLFLOW_TRACKING_URI=sqlite:///mlflow.db."
        )
    if store.sqlite_path is not None:
        _create_tables(store, store.sqlite_path)
        return store
    if store.uri.startswith("http"):
        _check_server(store.uri, timeout_s)
    _within(timeout_s, lambda: store.client.search_experiments(max_results=1), store)
    return store


def _create_tables(store: Store, path: Path) -> None:
    """Make the tables in one process at a time: several that first touch an empty file at once crash each other."""
    if not path.parent.is_dir():
        raise StoreError(
            f"The tracking store {store.uri} cannot be made: the folder {path.parent} does not exist. "
            "Create it, or name another file with MLFLOW_TRACKING_URI=sqlite:///<file>."
        )
    if path.is_file() and path.stat().st_size and not _has_sqlite_header(path):
        raise StoreError(
            f"The tracking store {store.uri} cannot be opened: the file is no sqlite database. "
            "Name another file with MLFLOW_TRACKING_URI=sqlite:///<file>."
        )
    try:
        with _locked(path.parent / f".{path.name}.lock"), _quiet():
            store.client.search_experiments(max_results=1)
    except Exception as error:
        raise store_error(store, "open it", error) from error


def _has_sqlite_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEADER)) == SQLITE_HEADER


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the hundred lines that a new database's migrations log."""
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_server(uri: str, timeout_s: float) -> None:
    """Ask once and without MLflow's retries, so that a server that is down is noticed at once."""
    import requests

    try:
        requests.get(f"{uri}/health", timeout=timeout_s)
    except requests.RequestException as error:
        raise _unreachable(uri, type(error).__name__) from error


def _unreachable(uri: str, reason: str) -> StoreError:
    return StoreError(
        f"The tracking server {shown(uri)} does not answer ({reason}). Start it (`mlflow server --host 127.0.0.1 "
        "--port <port>`), correct MLFLOW_TRACKING_URI, or unset it to write to ./mlflow.db."
    )


def _within(timeout_s: float, call: Callable[[], T], store: Store) -> T:
    """A call's result, or a StoreError when it fails or takes longer; the thread left behind is a daemon."""
    answer: list[T] = []
    failure: list[Exception] = []

    def work() -> None:
        try:
            answer.append(call())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="open-store", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failure:
        raise store_error(store, "open it", failure[0]) from failure[0]
    if not answer:
        raise _unreachable(store.uri, f"no answer within {timeout_s:g} s")
    return answer[0]


def store_error(store: Store, doing: str, error: BaseException) -> StoreError:
    """Any failure of a store as one paragraph: what, where, how to mend it.

    Args:
        store: the store that failed.
        doing: what was attempted, as in "could not <doing>".
        error: what MLflow, the database or the network raised.
    """
    if isinstance(error, StoreError):
        return StoreError(str(error))  # it says all that already
    reason = " ".join(shown(str(error)).split())
    return StoreError(
        f"The tracking store {shown(store.uri)}: could not {doing}. {shorten(reason, 400)} ({type(error).__name__}). "
        f"{_remedy(reason.lower())}"
    )


def _remedy(reason: str) -> str:
    if "schema" in reason and ("out-of-date" in reason or "upgrade" in reason):
        return "Upgrade the database with `mlflow db upgrade <uri>`, or use a new one."
    if "locked" in reason:
        return "Another process holds the database: end it, or use `mlflow server`, and try again."
    if "401" in reason or "403" in reason or "unauthorized" in reason:
        return "Give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    return "Check that the store runs and that MLFLOW_TRACKING_URI names it."


def shorten(text: str, limit: int) -> str:
    """A text of at most `limit` characters; what was cut off is said at its end."""
    if len(text) <= limit:
        return text
    mark = f"... [shortened: {len(text)} characters]"
    return text[: limit - len(mark)] + mark
