"""The run writer: what is written once, how runs end, and how failures reach the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muralab.errors import StoreError
from muralab.tracking import RunWriter, Store, read_run
from muralab.tracking.journal import Journal
from muralab.tracking.refusals import refusal_lines
from tests.fixtures.runs import find_runs
from tests.tracking.conftest import UNKNOWN, FakeStore


def test_a_resumed_run_has_each_step_once(store: Store, parent: str) -> None:
    with RunWriter(store) as first:
        first.log_epoch(parent, 1, {"loss": 1.0})
        first.log_epoch(parent, 2, {"loss": 0.5})
    with RunWriter(store) as second:
        assert second.resume_run(parent) == {1, 2}
        second.log_epoch(parent, 2, {"loss": 9.0, "accuracy": 0.7})
        second.log_epoch(parent, 3, {"loss": 0.2})
    points = store.client.get_metric_history(parent, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 0.2)]
    assert read_run(store, parent).history.loc[2, "accuracy"] == 0.7


def test_a_metric_is_logged_once_per_step(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        writer.log_epoch(trial, 1, {"loss": 1.0})
        writer.log_epoch(trial, 1, {"loss": 9.0})
    assert [point.value for point in local.client.get_metric_history(trial, "loss")] == [1.0]


def test_a_resumed_run_is_running_until_it_is_finished(local: Store, trial: str) -> None:
    local.client.set_terminated(trial, "KILLED")
    with RunWriter(local) as writer:
        writer.resume_run(trial)
        assert read_run(local, trial).status == "RUNNING"
        writer.finish(trial)
    assert (read_run(local, trial).status, read_run(local, trial).kind) == ("FINISHED", "trial")


def test_an_unknown_run_is_not_resumed(local: Store) -> None:
    with RunWriter(local) as writer, pytest.raises(StoreError, match=f"could not read the run {UNKNOWN}"):
        writer.resume_run(UNKNOWN)


def test_a_changed_param_is_refused(local: Store, trial: str) -> None:
    local.client.log_param(trial, "part", "wrist")
    with RunWriter(local) as writer:
        writer.adopt_run(trial)
        with pytest.raises(StoreError, match="param part = 'wrist', which MLflow does not allow to change to 'hand'"):
            writer.log_params(trial, {"part": "hand"})
        writer.log_resolved(trial, {"part": "hand"})
    assert read_run(local, trial).params == {"part": "wrist", "resolved.part": "hand"}


def test_an_equal_param_may_be_logged_again(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        writer.log_params(trial, {"part": "wrist"})
        writer.log_params(trial, {"part": "wrist", "seed": 3})
    assert read_run(local, trial).params == {"part": "wrist", "seed": "3"}


def test_long_values_are_shortened_with_a_mark(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        writer.log_params(parent, {"long": "x" * 7000, "longest": "x" * 6000})
        writer.set_tags(parent, {"long": "x" * 9000})
    record = read_run(store, parent)
    assert [len(record.params["long"]), len(record.params["longest"]), len(record.tags["long"])] == [6000, 6000, 8000]
    assert record.params["long"].endswith("x... [shortened: 7000 characters]")


@pytest.mark.parametrize(("length", "refused"), [(36, False), (37, True)])
def test_a_digest_has_at_most_36_characters(local: Store, trial: str, length: int, refused: bool) -> None:
    fields = {"name": "d", "source": "/data", "context": "test", "profile": {}, "digest": "a" * length}
    with RunWriter(local) as writer:
        if refused:
            with pytest.raises(ValueError, match="at most 36 characters, got 37"):
                writer.log_dataset(trial, **fields)
        else:
            writer.log_dataset(trial, **fields)


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED"), (None, "FAILED")],
)
def test_open_runs_are_ended_after_everything_is_written(
    local: Store, error: type[BaseException] | None, status: str
) -> None:
    try:
        with RunWriter(local) as writer:
            writer.log_epoch(writer.start_run(kind="trial", name="t"), 1, {"loss": 1.0})
            if error:
                raise error
    except (ValueError, KeyboardInterrupt, SystemExit):
        pass
    (record,) = find_runs(local)
    assert (record.status, record.metrics) == (status, {"loss": 1.0})


def test_an_adopted_run_is_ended(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        assert writer.adopt_run(trial) == trial
    assert read_run(local, trial).status == "FAILED"


def test_open_runs_may_be_ended_with_another_status(local: Store) -> None:
    with RunWriter(local) as writer:
        writer.start_run(kind="trial", name="t")
        writer.end_open_runs("KILLED")
        assert find_runs(local)[0].status == "KILLED"


def test_a_finished_run_stays_finished_after_an_error(local: Store) -> None:
    with pytest.raises(ValueError, match="boom"), RunWriter(local) as writer:
        call_and_raise(writer.finish, writer.start_run(kind="trial", name="t"), ValueError("boom"))
    assert find_runs(local)[0].status == "FINISHED"


@pytest.mark.parametrize("by_id", [False, True])
def test_a_run_is_finished_by_its_temporary_id_or_its_id(local: Store, by_id: bool) -> None:
    with RunWriter(local) as writer:
        run, other = writer.start_run(kind="tune", name="a"), writer.start_run(kind="tune", name="b")
        writer.finish(writer.run_id(run) if by_id else run)
        assert writer.run_id(run) != writer.run_id(other)
    assert {record.name: record.status for record in find_runs(local)} == {"a": "FINISHED", "b": "FAILED"}


def test_a_run_ends_when_it_was_finished(local: Store) -> None:
    with RunWriter(local) as writer:
        run = writer.run_id(writer.start_run(kind="tune", name="sweep"))
        writer.finish(run, "KILLED")
    info = local.client.get_run(run).info
    assert info.status == "KILLED"
    assert info.start_time <= info.end_time < info.start_time + 600_000  # in ms


def test_a_missing_file_is_an_error(local: Store, trial: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"could not log .*absent\.bin"), RunWriter(local) as writer:
        writer.log_file(trial, tmp_path / "absent.bin")


def test_a_refused_write_is_noted_on_the_error_that_ended_the_block(local: Store) -> None:
    error = ValueError("boom")
    with pytest.raises(ValueError, match="boom"), RunWriter(local) as writer:
        call_and_raise(lambda run: writer.set_tags(run, {"a": "1"}), UNKNOWN, error)
    (note,) = error.__notes__
    assert f"could not log metrics, params or tags of the run {UNKNOWN}" in note


def test_nothing_may_be_refused_before_hours_are_spent(local: Store) -> None:
    def log_and_require(writer: RunWriter) -> None:
        writer.set_tags(UNKNOWN, {"a": "1"})
        writer.require_written()

    with pytest.raises(StoreError, match=f"of the run {UNKNOWN}") as caught, RunWriter(local) as writer:
        log_and_require(writer)
    assert getattr(caught.value, "__notes__", []) == []


def test_refused_items_are_reported_by_whoever_asked_for_them(local: Store) -> None:
    reported: list[Any] = []
    with RunWriter(local, on_refused=reported.extend) as writer:
        writer.set_tags(UNKNOWN, {"a": "1"})
        writer.finish(UNKNOWN)
    (line,) = refusal_lines(reported)
    assert line.startswith(f"Could not log metrics, params or tags; set the status FINISHED of the run {UNKNOWN}.")


def test_a_file_may_vanish_once_it_is_queued(local: Store, trial: str, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journals", store_uri=local.uri, command="tune")
    page = tmp_path / "report.html"
    page.write_text("page")
    with RunWriter(local, journal=journal) as writer:
        writer.log_file(trial, page)
        page.unlink()
    assert [item.path for item in local.client.list_artifacts(trial)] == ["report.html"]
    assert list((tmp_path / "journals").iterdir()) == []


def test_secrets_are_kept_out_of_tags_and_params(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        writer.set_tags(trial, {"tag": "postgresql://a:p@ss@h/d"})
        writer.log_params(trial, {"param": "postgresql://a:p@ss@h/d"})
    record = read_run(local, trial)
    assert {record.tags["tag"], record.params["param"]} == {"postgresql://a:***@h/d"}


def test_a_slow_store_does_not_delay_the_caller(local: Store) -> None:
    logged = threading.Event()

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        assert logged.wait(60)
        return call()

    slow: Any = FakeStore(local, intercept)
    with RunWriter(slow) as writer:
        trial = writer.start_run(kind="trial", name="t")
        for step in range(1, 21):
            writer.log_epoch(trial, step, {"loss": 1.0})
        logged.set()
    assert len(find_runs(local)[0].history) == 20


def call_and_raise(call: Callable[[str], None], run: str, error: Exception) -> None:
    call(run)
    raise error
