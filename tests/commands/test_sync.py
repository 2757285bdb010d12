"""`sync`: by hand, also what was refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from muralab.tracking import Store, read_run, start_run
from muralab.tracking.journal import Journal
from muralab.tracking.operations import Batch, Operation
from tests.cli.conftest import Muralab


@pytest.fixture
def run(store: Store) -> str:
    return start_run(store, kind="tune", name="sweep")


def keep(tmp_path: Path, uri: str, run: str, *operations: Operation, refused: bool = False) -> Path:
    """A journal that an earlier command left."""
    journal = Journal.create(tmp_path / "cache" / "muralab" / "journals", store_uri=uri, command="tune")
    entries = [journal.add(run, operation) for operation in operations]
    for entry in entries if refused else []:
        journal.refused(entry, "413")
    journal.close(finished=False)
    return journal.folder


def test_nothing_to_write_is_said(muralab: Muralab) -> None:
    outcome = muralab("sync")
    assert (outcome.code, outcome.out.strip()[:18]) == (0, "Nothing waits for ")


@pytest.mark.parametrize("refused", [False, True])
def test_what_was_kept_is_written(muralab: Muralab, store: Store, tmp_path: Path, run: str, refused: bool) -> None:
    folder = keep(tmp_path, store.uri, run, Batch(tags={"kept": "1"}), refused=refused)
    outcome = muralab("sync")
    assert f"Wrote 1 entries that an earlier `tune` had kept in {folder}" in outcome.out
    assert read_run(store, run).tags["kept"] == "1"
    assert not folder.exists()


def test_what_is_refused_again_is_named_and_may_be_given_up(
    muralab: Muralab, store: Store, tmp_path: Path, run: str
) -> None:
    folder = keep(tmp_path, store.uri, run, Batch(metrics=[("bad%name", 1.0, 1, 0)]), refused=True)
    outcome = muralab("sync")
    assert outcome.code == 2
    assert "refused 1 items again: 1. Could not log metrics" in outcome.complaint
    assert folder.exists()
    assert muralab("sync", discard="true").code == 0
    assert not folder.exists()


def test_a_journal_of_another_store_names_it(muralab: Muralab, tmp_path: Path, run: str) -> None:
    keep(tmp_path, "postgresql://ann:secret@lab/db", run, Batch(tags={"kept": "1"}))
    outcome = muralab("sync")
    assert "1 entries of `tune` wait for postgresql://ann:***@lab/db: set MLFLOW_TRACKING_URI to it" in outcome.out


def test_a_store_that_is_away_is_a_user_error(
    muralab: Muralab, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_port)
    outcome = muralab("sync")
    assert (outcome.code, "does not answer" in outcome.complaint) == (2, True)
