"""Stores: a local database, a real `mlflow server` (marked slow), and one whose calls a test intercepts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muralab.tracking import Store, open_store, start_run

PLATFORM = Path(__file__).parents[2] / "platform"
UNKNOWN = "0" * 32
"""A run id that no store has."""


class FakeStore:
    """A store whose client's calls go through a function of (name, call)."""

    def __init__(self, store: Store, intercept: Callable[[str, Callable[[], Any]], Any]) -> None:
        self.uri, self.is_remote, self.sqlite_path = store.uri, store.is_remote, store.sqlite_path
        self.registry_uri, self.patience_s = "", 0.0
        self._client, self._intercept = store.impatient().client, intercept

    def impatient(self) -> FakeStore:
        return self

    @property
    def client(self) -> FakeStore:
        return self

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._intercept(name, lambda: method(*args, **kwargs))


@pytest.fixture
def local(empty_database: Path, tmp_path: Path) -> Store:
    """An empty database of this test's own."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return open_store(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture(params=["local", pytest.param("server", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> Store:
    """Either kind of store."""
    if request.param == "local":
        return request.getfixturevalue("local")
    return open_store(request.getfixturevalue("tracking_server"))


@pytest.fixture
def parent(store: Store) -> str:
    """A run in an experiment that other tests of the server share."""
    return start_run(store, experiment="mura wrist", kind="tune", name="sweep")


@pytest.fixture
def trial(local: Store) -> str:
    """A run in the local database."""
    return start_run(local, kind="trial", name="t")


def start_python(code: str) -> subprocess.Popen[bytes]:
    """Another process with the platform on its path."""
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(PLATFORM)})
