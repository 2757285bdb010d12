"""Addresses of stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from muralab.errors import StoreError
from muralab.tracking import absolute_uri
from muralab.tracking.address import sqlite_path


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("uri", [None, "", " ", "mlflow.db", "sqlite:///mlflow.db"])
def test_the_default_is_a_database_in_the_working_directory(tmp_path: Path, uri: str | None) -> None:
    assert absolute_uri(uri) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("name", ["a.db", "a.sqlite", "a.sqlite3"])
def test_a_database_file_is_recognised_by_its_suffix(tmp_path: Path, name: str) -> None:
    assert absolute_uri(name) == f"sqlite:///{tmp_path / name}"


@pytest.mark.parametrize("uri", ["runs", "file:runs"])
def test_a_folder_becomes_absolute(tmp_path: Path, uri: str) -> None:
    assert absolute_uri(uri) == (tmp_path / "runs").as_uri()


def test_the_query_of_a_database_is_kept(tmp_path: Path) -> None:
    assert absolute_uri("sqlite:///a.db?timeout=5") == f"sqlite:///{tmp_path}/a.db?timeout=5"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000/", "postgresql://lab/mlflow", "databricks", "databricks-uc"])
def test_an_address_of_a_server_is_absolute_already(uri: str) -> None:
    assert absolute_uri(uri) == uri.rstrip("/")


@pytest.mark.parametrize("uri", ["sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match=r"is in memory.*Give a file"):
        absolute_uri(uri)


@pytest.mark.parametrize(
    ("uri", "reason"), [("http://[::1/x", "Invalid IPv6 URL"), ("http://", "names no host"), ("https:///x", "names no")]
)
def test_a_broken_address_is_refused(uri: str, reason: str) -> None:
    with pytest.raises(StoreError, match=f"{reason}.*Expected such as http://host:5000"):
        absolute_uri(uri)


def test_the_file_of_a_database() -> None:
    assert sqlite_path("sqlite:////lab/a.db?timeout=5") == Path("/lab/a.db")
    assert sqlite_path("http://127.0.0.1:5000") is None
