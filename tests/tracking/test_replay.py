"""Journals of commands that were killed or gave up: written once, in order, whatever was written before."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from muralab.errors import StoreUnavailableError
from muralab.tracking import RunWriter, Store, close_dead_runs, read_children, read_run, start_run
from muralab.tracking.journal import Journal, find_journals, read_journal
from muralab.tracking.replay import left_journals, replay_journals
from muralab.tracking.tags import Tag
from tests.fixtures.runs import find_runs
from tests.tracking.conftest import FakeStore, start_python
from tests.tracking.test_queue import Switch, failing, too_large


def give_up(store: Any, parent: Path, **options: Any) -> None:
    """A sweep of one trial whose store is away to the end."""
    journal = Journal.create(parent, store_uri=store.uri, command="tune")
    with pytest.raises(StoreUnavailableError), RunWriter(store, patience_s=0.1, journal=journal, **options) as writer:
        log_trial(writer)


def log_trial(writer: RunWriter) -> None:
    sweep = writer.start_run(kind="tune", name="sweep")
    trial = writer.start_run(kind="trial", name="t", parent=sweep)
    for step in (1, 2, 3):
        writer.log_epoch(trial, step, {"loss": 1 / step})
    writer.log_text(trial, "image,logit\n", "predictions/validation.csv")
    writer.set_tags(trial, {Tag.ENDED: "finished"})
    writer.finish(trial)
    writer.finish(sweep)


def record_of(store: Store) -> dict[str, Any]:
    """What the store holds of the sweep, without ids and times."""
    runs = find_runs(store)
    found: dict[str, Any] = {one.name: (one.status, one.kind, one.tags.get(Tag.ENDED)) for one in runs}
    (sweep,) = [one for one in runs if one.kind == "tune"]
    (trial,) = read_children(store, sweep.run_id)
    points = store.client.get_metric_history(trial.run_id, "loss")
    found["loss"] = sorted((point.step, point.value) for point in points)
    found["artifacts"] = [item.path for item in store.client.list_artifacts(trial.run_id, "predictions")]
    return found


UNDISTURBED = {
    "sweep": ("FINISHED", "tune", None),
    "t": ("FINISHED", "trial", "finished"),
    "loss": [(1, 1.0), (2, 0.5), (3, 1 / 3)],
    "artifacts": ["predictions/validation.csv"],
}


def test_a_sweep_whose_store_was_away_is_written_by_the_next_command(local: Store, tmp_path: Path) -> None:
    store: Any = FakeStore(local, Switch())
    give_up(store, tmp_path / "journals")
    assert [(one.command, one.waiting) for one in left_journals(tmp_path / "journals")] == [("tune", 9)]
    (done,) = replay_journals(local, tmp_path / "journals")
    assert (done.written, list(done.refusals)) == (9, [])
    assert record_of(local) == UNDISTURBED
    assert list((tmp_path / "journals").iterdir()) == []


@pytest.mark.parametrize("n_calls", range(1, 10))
def test_a_journal_is_written_again_without_doubling_anything(local: Store, tmp_path: Path, n_calls: int) -> None:
    """The store goes away after any of the calls, whose answer is lost."""
    left = [n_calls]

    def intercept(name: str, call: Any) -> Any:
        left[0] -= 1
        if left[0] > 0:
            return call()
        if left[0] == 0:
            call()
        raise ConnectionError("gone")

    store: Any = FakeStore(local, intercept)
    give_up(store, tmp_path)
    replay_journals(local, tmp_path)
    assert record_of(local) == UNDISTURBED


@pytest.mark.slow
def test_a_killed_process_loses_nothing(local: Store, tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path\n"
        "from muralab.tracking import *; from muralab.tracking.journal import Journal\n"
        f"store = open_store('{local.uri}')\n"
        f"journal = Journal.create(Path('{tmp_path}'), store_uri=store.uri, command='tune')\n"
        "with RunWriter(store, journal=journal) as writer:\n"
        "    trial = writer.start_run(kind='trial', name='t')\n"
        "    writer.log_epoch(trial, 1, {'loss': 1.0})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert start_python(code).wait(600) == -signal.SIGKILL
    replay_journals(local, tmp_path)
    assert len(close_dead_runs(local)) == 1
    (record,) = find_runs(local)
    assert (record.status, record.metrics, record.tags[Tag.PID] != str(os.getpid())) == ("KILLED", {"loss": 1.0}, True)


def test_a_journal_of_another_store_is_left_alone(local: Store, tmp_path: Path) -> None:
    other: Any = FakeStore(local, Switch())
    other.uri = "postgresql://ann:secret@lab/db"
    give_up(other, tmp_path)
    assert replay_journals(local, tmp_path) == []
    assert left_journals(tmp_path)[0].store == "postgresql://ann:***@lab/db"


def test_a_journal_in_use_is_left_alone(local: Store, trial: str, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, store_uri=local.uri, command="tune")
    with RunWriter(local, journal=journal) as writer:
        writer.log_epoch(trial, 1, {"loss": 1.0})
        assert replay_journals(local, tmp_path) == []


def test_refused_items_are_tried_again_on_request_only(local: Store, tmp_path: Path) -> None:
    store: Any = FakeStore(local, failing(10**6, "log_text", too_large()))
    trial = start_run(local, kind="trial", name="t")
    journal = Journal.create(tmp_path, store_uri=local.uri, command="tune")
    with RunWriter(store, journal=journal, on_refused=lambda _: None) as writer:
        writer.log_text(trial, "page", "report.html")
    assert replay_journals(local, tmp_path) == []
    assert [one.refused for one in left_journals(tmp_path)] == [1]
    (done,) = replay_journals(local, tmp_path, refused=True)
    assert (done.written, left_journals(tmp_path)) == (1, [])
    assert read_run(local, trial).tags[Tag.NOT_LOGGED] == ""


def test_a_store_that_is_still_away_leaves_the_journal_as_it_is(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muralab.tracking.replay.REPLAY_PATIENCE_S", 0.1)
    store: Any = FakeStore(local, Switch())
    give_up(store, tmp_path)
    (folder,) = find_journals(tmp_path)
    before = read_journal(folder).entries
    with pytest.raises(StoreUnavailableError):
        replay_journals(store, tmp_path)
    assert list(read_journal(folder).entries) == list(before)
