"""The journal: what it holds after a crash, and what is left of it when everything is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muralab.tracking import journal as journals
from muralab.tracking.journal import NAME, Journal, find_journals, read_journal
from muralab.tracking.operations import Batch, EndRun, LogDataset, LogFile, LogText, StartRun

OPERATIONS = [
    StartRun(experiment="lab", name="t", tags={"a": "b"}, parent="p", attempts=1),
    Batch(metrics=[("loss", 0.5, 1, 12)], params={"p": "1"}, tags={"t": "2"}),
    LogText("ö\n", "a/b.txt"),
    LogFile("/x/report.html", "folder"),
    LogDataset({"name": "d"}, "test"),
    EndRun("FINISHED", 13),
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path / "journals", store_uri="postgresql://a:secret@lab/db", command="tune")


def reopened(journal: Journal) -> Any:
    """The journal as the next process finds it."""
    journal._lock.release()
    found = Journal.reopen(journal.folder)
    assert found is not None
    return found


def test_everything_that_was_added_is_found_by_the_next_process(journal: Journal) -> None:
    entries = [journal.add("r", operation) for operation in OPERATIONS]
    _, content = reopened(journal)
    assert list(content.entries.values())[1:] == entries[1:]
    assert content.entries[1].operation == StartRun(**{**vars(OPERATIONS[0]), "attempts": 2})
    assert (content.store, content.command, content.damaged) == ("postgresql://a:***@lab/db", "tune", 0)


def test_no_secret_is_in_the_file_and_nobody_else_may_read_it(journal: Journal) -> None:
    assert "secret" not in (journal.folder / NAME).read_text()
    assert (journal.folder / NAME).stat().st_mode & 0o077 == 0


def test_what_is_written_is_not_found_again(journal: Journal) -> None:
    entries = [journal.add("unstarted-1", operation) for operation in OPERATIONS]
    journal.started("unstarted-1", "abc")
    journal.done(entries[:2])
    journal.refused(entries[2], "too large")
    _, content = reopened(journal)
    assert (list(content.entries), dict(content.refused)) == ([3, 4, 5, 6], {3: "too large"})
    assert content.ids == {"unstarted-1": "abc"}


def test_a_line_that_was_cut_off_costs_nothing_else(journal: Journal) -> None:
    journal.add("r", OPERATIONS[1])
    with (journal.folder / NAME).open("a") as file:
        file.write('{"n": 2, "run": "r", "wri')
    again, _ = reopened(journal)
    again.add("r", OPERATIONS[2])
    content = read_journal(journal.folder)
    assert [entry.operation for entry in content.entries.values()] == OPERATIONS[1:3]


def test_a_damaged_line_is_counted(journal: Journal) -> None:
    journal.add("r", OPERATIONS[1])
    path = journal.folder / NAME
    path.write_text(path.read_text().replace('"n": 1', '"x": 1') + "nonsense\n")
    assert read_journal(journal.folder).damaged == 2


def test_a_journal_in_use_is_left_alone(journal: Journal) -> None:
    assert Journal.reopen(journal.folder) is None


def test_without_locks_a_journal_belongs_to_its_process_while_that_lives(
    journal: Journal, break_locks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.add("r", OPERATIONS[1])
    break_locks()
    assert Journal.reopen(journal.folder) is None
    monkeypatch.setattr(journals, "is_alive", lambda process: False)
    found = Journal.reopen(journal.folder)
    assert found is not None
    assert len(found[1].entries) == 1


def test_nothing_is_left_of_a_journal_that_is_finished(journal: Journal, tmp_path: Path) -> None:
    journal.done([journal.add("r", OPERATIONS[1])])
    journal.close(finished=True)
    assert list((tmp_path / "journals").iterdir()) == []


def test_a_journal_that_stays_is_cut_to_what_is_left(journal: Journal) -> None:
    entries = [journal.add("r", OPERATIONS[1]) for _ in range(50)]
    journal.started("unstarted-1", "abc")
    journal.done(entries[:-2])
    journal.refused(entries[-1], "no")
    before = read_journal(journal.folder)
    journal.close(finished=False)
    assert read_journal(journal.folder) == before
    assert len((journal.folder / NAME).read_text().splitlines()) == 5


def test_a_file_is_kept_as_it_was(journal: Journal, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("first")
    kept = journal.keep_file(page)
    page.unlink()
    assert (kept.name, kept.read_text()) == ("report.html", "first")
    journal.done([journal.add("r", LogFile(str(kept)))])
    assert not kept.parent.exists()


def test_a_file_on_another_file_system_is_copied(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setattr(os, "link", refuse)
    assert journal.keep_file(tmp_path / "a.txt").read_text() == "x"


def test_a_full_disk_is_reported_once_and_stops_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = os.write

    def fill(file: int, data: bytes) -> int:
        if len(data) > 20:
            return write(file, data[:10])  # half a line
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fill)
    for operation in OPERATIONS[1:3]:
        journal.add("r", operation)
    monkeypatch.undo()
    journal.add("r", OPERATIONS[5])
    assert [entry.operation for entry in read_journal(journal.folder).entries.values()] == [OPERATIONS[5]]
    assert [text.count("No space left") for text in caplog.messages] == [1]


def test_journals_are_found_oldest_first(tmp_path: Path) -> None:
    for name in ("20260102T-b", "20260101T-a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / NAME).touch()
    assert [path.name for path in find_journals(tmp_path)] == ["20260101T-a", "20260102T-b"]
