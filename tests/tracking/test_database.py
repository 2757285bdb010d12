"""The file of a local database."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow.store.db import utils

from muralab.errors import StoreError
from muralab.tracking import open_store, start_run
from muralab.tracking.database import is_incomplete, open_database

TEMPORARY_TABLE = "create table _alembic_tmp_latest_metrics (key text)"
EARLIER_STEP = "update alembic_version set version_num = '451aebb31d03'"
NO_STEP = "delete from alembic_version"
NEWER_MLFLOW = "update alembic_version set version_num = '0123456789ab'"


def make_incomplete(path: Path, statement: str = TEMPORARY_TABLE) -> None:
    """Leave a database as a process does that is killed while MLflow makes its tables."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()


def test_a_database_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"folder .*absent does not exist"),
        open_database(tmp_path / "absent/mlflow.db"),
    ):
        pass


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("plain text " * 100)
    with (
        pytest.raises(StoreError, match=r"not a SQLite database. Give another file"),
        open_database(tmp_path / "mlflow.db"),
    ):
        pass


def test_an_interrupt_while_the_tables_are_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(engine: object) -> None:
        make_incomplete(tmp_path / ".mlflow.db.new")
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "_initialize_tables", interrupt)
    with pytest.raises(KeyboardInterrupt), open_database(tmp_path / "mlflow.db"):
        pass
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


@pytest.fixture
def quick_tables(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's tables, which take it seconds, are copied."""
    monkeypatch.setattr(utils, "_initialize_tables", lambda engine: shutil.copy(empty_database, engine.url.database))


@pytest.mark.usefixtures("quick_tables")
def test_what_a_killed_process_left_beside_it_is_replaced(tmp_path: Path) -> None:
    make_incomplete(tmp_path / ".mlflow.db.new")
    open_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert not is_incomplete(tmp_path / "mlflow.db")
    assert not (tmp_path / ".mlflow.db.new").exists()


@pytest.mark.usefixtures("quick_tables")
@pytest.mark.parametrize("statement", [TEMPORARY_TABLE, EARLIER_STEP, NO_STEP])
def test_a_database_that_was_left_incomplete_is_set_aside(
    empty_database: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    make_incomplete(path, statement)
    assert is_incomplete(path)
    assert open_store(f"sqlite:///{path}").client.search_experiments()
    assert len(list(tmp_path.glob("mlflow.db.incomplete-*"))) == 1
    assert "held no run" in caplog.text


def test_a_database_that_holds_runs_is_never_set_aside(empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    start_run(open_store(f"sqlite:///{tmp_path}/mlflow.db"), kind="trial", name="t")
    make_incomplete(tmp_path / "mlflow.db")
    assert not is_incomplete(tmp_path / "mlflow.db")


def test_a_database_of_a_newer_mlflow_is_left_alone(empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    make_incomplete(tmp_path / "mlflow.db", NEWER_MLFLOW)
    assert not is_incomplete(tmp_path / "mlflow.db")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    make_incomplete(tmp_path / "other.db")
    assert not is_incomplete(tmp_path / "other.db")
    assert not is_incomplete(tmp_path / "absent.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="could not open it"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db")
