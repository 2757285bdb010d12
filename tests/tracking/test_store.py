"""Opening a store, and the messages of its failures."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import time
from pathlib import Path

import pytest

from muralab.errors import StoreError
from muralab.tracking import Store, open_store
from muralab.tracking.store import shorten, store_error
from tests.tracking.conftest import start_python


def test_a_folder_of_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder of files.*sqlite:///mlflow.db"):
        open_store(str(tmp_path / "mlruns"))


def test_a_database_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder .*absent does not exist"):
        open_store(f"sqlite:///{tmp_path}/absent/mlflow.db")


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("plain text " * 100)
    with pytest.raises(StoreError, match=r"not a SQLite database. Give another file"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"\1" * 5000)
    with pytest.raises(StoreError, match=r"could not open it\. .*\((DatabaseError|MlflowException)\)"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_an_empty_file_becomes_a_database_without_noise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").touch()
    with caplog.at_level(logging.INFO):
        open_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "mlflow.db").stat().st_size > 0
    assert [record for record in caplog.records if record.name.startswith("alembic")] == []


@pytest.mark.slow
def test_two_processes_may_open_an_empty_database_at_once(tmp_path: Path) -> None:
    code = f"from muralab.tracking import open_store; open_store('sqlite:///{tmp_path}/mlflow.db')"
    processes = [start_python(code) for _ in range(2)]
    assert [process.wait(600) for process in processes] == [0, 0]


def test_a_server_that_is_down_is_reported_at_once() -> None:
    start_s = time.monotonic()
    with pytest.raises(StoreError, match=r"http://127.0.0.1:9 does not answer.*mlflow server"):
        open_store("http://127.0.0.1:9", timeout_s=5)
    assert time.monotonic() - start_s < 30  # MLflow itself retries for minutes


def test_a_server_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StoreError, match="does not answer"):
        open_store(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)


def test_another_process_gets_an_equal_store(local: Store) -> None:
    copy = pickle.loads(pickle.dumps(local))
    assert copy == local
    assert copy.client.search_experiments()


@pytest.mark.parametrize(
    ("uri", "remote"),
    [("http://lab", True), ("https://lab", True), ("databricks://lab", True), ("sqlite:////a.db", False)],
)
def test_servers_are_remote(uri: str, remote: bool) -> None:
    assert Store(uri=uri).is_remote == remote


def test_a_client_gives_up_within_seconds(local: Store) -> None:
    assert local.client
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("Detected out-of-date database schema", "mlflow db upgrade"),
        ("database is locked", "Another process has locked the database"),
        ("error code 401", "MLFLOW_TRACKING_TOKEN"),
        ("error code 403", "MLFLOW_TRACKING_USERNAME"),
        ("Unauthorized", "MLFLOW_TRACKING_USERNAME"),
        ("connection refused", "Check that the store is running"),
    ],
)
def test_each_failure_has_its_remedy(local: Store, reason: str, remedy: str) -> None:
    assert remedy in str(store_error(local, "open it", OSError(reason)))


def test_a_failure_is_one_paragraph_without_passwords() -> None:
    error = store_error(Store(uri="postgresql://ada:secret@lab/a"), "start", ValueError("no\n route to x://b:key@c"))
    assert str(error).startswith(
        "The tracking store postgresql://ada:***@lab/a: could not start. no route to x://b:***@c"
    )


def test_a_long_reason_is_shortened(local: Store) -> None:
    assert "x... [shortened: 900 characters] (OSError)." in str(store_error(local, "start", OSError("x" * 900)))


def test_a_message_is_not_wrapped_twice(local: Store) -> None:
    assert str(store_error(local, "start", StoreError("It is down."))) == "It is down."


def test_only_longer_texts_are_shortened() -> None:
    assert shorten("x" * 40, 40) == "x" * 40
    assert shorten("x" * 41, 40) == "x" * 10 + "... [shortened: 41 characters]"
