"""A tracking store with its registry, and the client that waits for it."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from muralab.tracking.address import sqlite_path
from muralab.tracking.outage import PATIENCE_S, outage_of, retried
from muralab.tracking.storable import storable, storable_options

# MLflow's client repeats a call for minutes, also one that creates something and whose answer was lost. Here every
# call is made once, and what may be repeated is repeated by `retried`.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints one line per run, across the live table
}
CREATES = ("create_", "log_outputs", "copy_model_version")
"""What the names of the client's methods begin with that make something new at each call."""
SENDS_TEXT = ("create_", "set_", "update_", "log_text")
"""Likewise of those whose texts go into a database; not of those that take the path of a file."""
ERROR_LOGGERS = ("mlflow.store.db.utils", "mlflow.utils.rest_utils")
"""They log each failed call with its traceback; here each failure reaches the user as one message."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A tracking store that has been reached once. Picklable: each process builds its own client."""

    uri: str
    """Absolute: it does not depend on the working directory."""
    registry_uri: str = ""
    """Of the model registry, absolute; empty: the tracking store's own."""
    patience_s: float = PATIENCE_S
    """How long the client waits for a store that does not answer."""
    keys: Path | None = None
    """Folder of the keys of coded names: names that an earlier version logged are read as codes. None: as logged."""

    @property
    def client(self) -> Any:
        """The process's `MlflowClient` of this store; it repeats calls that fail for a temporary reason."""
        return _Client(_build_client(self.uri, self.registry_uri or self.uri), self.uri, self.patience_s)

    def impatient(self) -> Store:
        """The same store with a client that tries once."""
        return replace(self, patience_s=0.0)

    @property
    def is_remote(self) -> bool:
        """Whether the store is a server."""
        return urlsplit(self.uri).scheme in ("http", "https", "databricks")

    @property
    def sqlite_path(self) -> Path | None:
        """The database's file, or None where the store is not a sqlite file."""
        return sqlite_path(self.uri)


@final
class _Client:
    """An `MlflowClient` that sends texts as every database takes them, and that waits for the store.

    It does not wait in calls that would make something twice, nor without patience.
    """

    def __init__(self, client: Any, uri: str, patience_s: float) -> None:
        self._client, self._uri, self._patience_s = client, uri, patience_s

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method
        waits = self._patience_s > 0 and not name.startswith(CREATES)

        @functools.wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            if name.startswith(SENDS_TEXT):
                arguments, options = storable(arguments), storable_options(options)
            make: Callable[[], Any] = functools.partial(method, *arguments, **options)
            return retried(make, outage=outage_of(self._uri), patience_s=self._patience_s) if waits else make()

        return call


def prepare_mlflow() -> None:
    """Set what MLflow reads when it is imported, and keep it from printing tracebacks."""
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in ERROR_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


@functools.lru_cache(maxsize=16)
def _build_client(uri: str, registry_uri: str) -> Any:
    prepare_mlflow()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=registry_uri)
