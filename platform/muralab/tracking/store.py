"""A tracking store: opening it, and turning its failures into error messages."""

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

from filelock import FileLock

from muralab.errors import StoreError
from muralab.tracking.address import absolute_uri, shown, sqlite_path

# MLflow's client retries a call for minutes; the run writer has its own retries, and a command must answer in seconds.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints one line per run, across the live table
}
SQLITE_HEADER = b"SQLite format 3"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Store:
    """A tracking store that has been reached once. Picklable: each process builds its own client."""

    uri: str
    """Absolute: it does not depend on the working directory."""

    @property
    def client(self) -> Any:
        """The process's `MlflowClient` of this store."""
        return _build_client(self.uri)

    @property
    def is_remote(self) -> bool:
        """Whether the store is a server."""
        return urlsplit(self.uri).scheme in ("http", "https", "databricks")

    @property
    def sqlite_path(self) -> Path | None:
        """The database's file, or None where the store is not a sqlite file."""
        return sqlite_path(self.uri)


@functools.lru_cache(maxsize=16)
def _build_client(uri: str) -> Any:
    for name, value in MLFLOW_DEFAULTS.items():  # some are read when MLflow is imported
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def open_store(uri: str | None = None, *, timeout_s: float = 10.0) -> Store:
    """Connect to a tracking store, creating a local database's tables if they are missing.

    Args:
        uri: see `absolute_uri`.
        timeout_s: how long a server may take to respond.

    Raises:
        StoreError: the store cannot be used; the text says why and how to fix it.
    """
    store = Store(uri=absolute_uri(uri))
    if urlsplit(store.uri).scheme == "file":
        raise StoreError(
            f"The tracking store {store.uri} is a folder of files, which MLflow no longer supports. Give a "
            "database instead, for example MLFLOW_TRACKING_URI=sqlite:///mlflow.db."
        )
    if store.sqlite_path is not None:
        _create_tables(store, store.sqlite_path)
        return store
    if store.uri.startswith("http"):
        _check_server(store.uri, timeout_s)
    _within(timeout_s, lambda: store.client.search_experiments(max_results=1), store)
    return store


def _create_tables(store: Store, path: Path) -> None:
    """Create the tables in one process at a time: processes that open an empty file at the same time crash."""
    if not path.parent.is_dir():
        raise StoreError(
            f"The tracking store {store.uri} cannot be created: the folder {path.parent} does not exist. "
            "Create it, or give another file with MLFLOW_TRACKING_URI=sqlite:///<file>."
        )
    if path.is_file() and path.stat().st_size and not _has_sqlite_header(path):
        raise StoreError(
            f"The tracking store {store.uri} cannot be opened: the file is not a SQLite database. "
            "Give another file with MLFLOW_TRACKING_URI=sqlite:///<file>."
        )
    try:
        with FileLock(path.parent / f".{path.name}.lock"), _quiet():
            store.client.search_experiments(max_results=1)
    except Exception as error:
        raise store_error(store, "open it", error) from error


def _has_sqlite_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEADER)) == SQLITE_HEADER


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the hundred lines that the migrations of a new database log."""
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
    """Send one request without MLflow's retries, so that a server that is down is noticed at once."""
    import requests

    try:
        requests.get(f"{uri}/health", timeout=timeout_s)
    except requests.RequestException as error:
        raise _unreachable(uri, type(error).__name__) from error


def _unreachable(uri: str, reason: str) -> StoreError:
    return StoreError(
        f"The tracking server {shown(uri)} does not answer ({reason}). Start it (`mlflow server --host 127.0.0.1 "
        "--port <port>`), correct MLFLOW_TRACKING_URI, or unset it to use ./mlflow.db."
    )


def _within(timeout_s: float, call: Callable[[], T], store: Store) -> T:
    """The result of a call; StoreError if it fails or takes longer, in which case its daemon thread is abandoned."""
    result: list[T] = []
    failure: list[Exception] = []

    def work() -> None:
        try:
            result.append(call())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="open-store", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failure:
        raise store_error(store, "open it", failure[0]) from failure[0]
    if not result:
        raise _unreachable(store.uri, f"no response within {timeout_s:g} s")
    return result[0]


def store_error(store: Store, doing: str, error: BaseException) -> StoreError:
    """Any failure of a store as one paragraph: what failed, where, why, how to fix it.

    Args:
        store: the store that failed.
        doing: what was attempted, as in "could not <doing>".
        error: what MLflow, the database or the network raised.
    """
    if isinstance(error, StoreError):
        return StoreError(str(error))
    reason = " ".join(shown(str(error)).split())
    return StoreError(
        f"The tracking store {shown(store.uri)}: could not {doing}. {shorten(reason, 400)} ({type(error).__name__}). "
        f"{_remedy(reason.lower())}"
    )


def _remedy(reason: str) -> str:
    if "schema" in reason and ("out-of-date" in reason or "upgrade" in reason):
        return "Upgrade the database with `mlflow db upgrade <uri>`, or use a new one."
    if "locked" in reason:
        return "Another process has locked the database: end it, or use `mlflow server`, and try again."
    if "401" in reason or "403" in reason or "unauthorized" in reason:
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    return "Check that the store is running and that MLFLOW_TRACKING_URI is its address."


def shorten(text: str, limit: int) -> str:
    """A text of at most `limit` characters; a mark at its end gives the original length."""
    if len(text) <= limit:
        return text
    mark = f"... [shortened: {len(text)} characters]"
    return text[: limit - len(mark)] + mark
