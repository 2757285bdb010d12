"""A local store whose folder moves, with its database and its artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from muralab.tracking import RunWriter, Store, download_artifact, open_store
from muralab.tracking.moved import follow_moved_store


@pytest.fixture
def folder(tmp_path: Path, empty_database: Path) -> Path:
    """A folder with a store."""
    (tmp_path / "my lab").mkdir()
    shutil.copy(empty_database, tmp_path / "my lab" / "mlflow.db")
    return tmp_path / "my lab"


def store_in(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def run_id(folder: Path) -> str:
    """A run with an artifact."""
    with RunWriter(store_in(folder)) as writer:
        run = writer.start_run(experiment="own", kind="train", name="one")
        writer.log_text(run, "text", "note.txt")
        writer.finish(run)
        return writer.run_id(run)


def test_a_moved_store_finds_its_artifacts(folder: Path, run_id: str, tmp_path: Path) -> None:
    moved = store_in(folder.rename(tmp_path / "elsewhere"))
    done = follow_moved_store(moved)
    assert str(folder) in done
    assert download_artifact(moved, run_id, "note.txt", tmp_path / "out").read_text() == "text"
    assert follow_moved_store(moved) == ""


def test_a_copy_of_a_store_is_left_alone(folder: Path, run_id: str, tmp_path: Path) -> None:
    copy = store_in(Path(shutil.copytree(folder, tmp_path / "copy")))
    assert follow_moved_store(copy) == ""
    assert copy.client.get_run(run_id).info.artifact_uri.startswith(folder.as_uri())


def test_a_store_that_has_not_moved_is_left_alone(folder: Path, run_id: str) -> None:
    assert follow_moved_store(store_in(folder)) == ""
