"""Opening a store: it answers, to this version and this user, before any work begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from muralab.errors import StoreError, StoreUnavailableError
from muralab.redaction import redact
from muralab.time_limit import within
from muralab.tracking.address import absolute_uri, sqlite_path
from muralab.tracking.database import open_database
from muralab.tracking.failures import causes, proxy_note, reason_of, remedy, store_error
from muralab.tracking.store import Store, prepare_mlflow

VERSION = re.compile(r"(\d+)\.\d+[\w.+-]*")
OLDEST_SERVER = 3
"""Major version: registering a model needs MLflow 3's logged models."""
GATEWAY_STATUSES = frozenset((502, 503, 504))
T = TypeVar("T")


def open_store(uri: str | None = None, *, registry_uri: str | None = None, timeout_s: float = 10.0) -> Store:
    """Connect to a tracking store and its registry, creating a local database's tables if they are missing.

    Args:
        uri: see `absolute_uri`.
        registry_uri: likewise, of a model registry elsewhere; None or empty: the tracking store's own.
        timeout_s: how long a server may take to respond.

    Raises:
        StoreError: the store cannot be used; the text says why and how to fix it.
    """
    store = Store(uri=absolute_uri(uri), registry_uri=absolute_uri(registry_uri) if registry_uri else "")
    _open(store, lambda client: client.search_experiments(max_results=1), timeout_s)
    if store.registry_uri and store.registry_uri != store.uri:
        registry = Store(uri=store.registry_uri)
        try:
            _open(registry, lambda client: client.search_registered_models(max_results=1), timeout_s)
        except StoreError as error:
            raise StoreError(f"MLFLOW_REGISTRY_URI: {error}") from error
    return store


def _open(store: Store, ask: Callable[[Any], object], timeout_s: float) -> None:
    """Make sure that a store can be used, in at most a few seconds."""
    if urlsplit(store.uri).scheme == "file":
        raise StoreError(
            f"The tracking store {store.uri} is a folder of files, which MLflow no longer supports. Give a "
            "database instead, for example MLFLOW_TRACKING_URI=sqlite:///mlflow.db."
        )
    prepare_mlflow()
    path = sqlite_path(store.uri)
    try:
        if path is not None:
            with open_database(path):
                ask(store.impatient().client)
            return
        if store.uri.startswith("http"):
            check_server(store.uri, timeout_s)
        else:
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - seconds that are not the database's
        _within(timeout_s, lambda: ask(store.impatient().client), store)
    except StoreError:
        raise
    except Exception as error:
        raise store_error(store, "open it", error) from error


def check_server(uri: str, timeout_s: float) -> None:
    """Ask a server for its version with everything that MLflow's client sends: credentials, certificates, proxies.

    Raises:
        StoreError: it does not answer, or is too old.
    """
    response = _request(uri, "/version", timeout_s)
    if response.status_code in GATEWAY_STATUSES:
        raise _unreachable(uri, f"status {response.status_code}")
    found = VERSION.fullmatch(response.text.strip()) if response.status_code == 200 else None
    if found and int(found[1]) < OLDEST_SERVER:
        raise StoreError(
            f"The tracking server {redact(uri)} runs MLflow {found[0]}, to which this version's models cannot be "
            "registered. Upgrade the server to MLflow 3 (and its database with `mlflow db upgrade`), or unset "
            "MLFLOW_TRACKING_URI to use ./mlflow.db."
        )


def _request(uri: str, path: str, timeout_s: float) -> Any:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        return http_request(
            get_default_host_creds(uri), path, "GET", max_retries=0, timeout=timeout_s, raise_on_status=False
        )
    except Exception as error:
        raise _no_answer(uri, error) from error


def _no_answer(uri: str, error: Exception) -> StoreError:
    """A server that could not be asked: the remedy of its cause where there is one, else how to start it."""
    from requests.exceptions import RequestException

    if not any(isinstance(one, RequestException) for one in causes(error)):  # its settings cannot be used
        return StoreError(f"The tracking server {redact(uri)} cannot be asked. {reason_of(error)}")
    advice = remedy(uri, error)
    if advice.startswith("Check that"):
        return _unreachable(uri, type(error.__cause__ or error.__context__ or error).__name__)
    return StoreError(f"The tracking server {redact(uri)} cannot be reached. {reason_of(error)}. {advice}")


def _unreachable(uri: str, reason: str) -> StoreUnavailableError:
    if not uri.startswith("http"):
        return StoreUnavailableError(
            f"The tracking store {redact(uri)} does not answer ({reason}). Check that the database runs and accepts "
            "connections from this machine, and that MLFLOW_TRACKING_URI is its address."
        )
    return StoreUnavailableError(
        f"The tracking server {redact(uri)} does not answer ({reason}). Start it (`mlflow server --host 127.0.0.1 "
        "--port <port>`), correct MLFLOW_TRACKING_URI, or unset it to use ./mlflow.db."
        f"{proxy_note(uri)}"
    )


def _within(timeout_s: float, call: Callable[[], T], store: Store) -> T:
    """The result of a call; StoreError if it fails or takes longer, in which case its daemon thread is abandoned."""

    def explained() -> T:
        try:
            return call()
        except Exception as error:
            raise store_error(store, "open it", error) from error

    try:
        return within(timeout_s, explained)
    except TimeoutError as error:
        raise _unreachable(store.uri, f"no response within {timeout_s:g} s") from error
