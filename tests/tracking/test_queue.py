"""The write queue: batches, order, a store that is away, and items that it refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from muralab.errors import StoreError, StoreUnavailableError
from muralab.tracking import RunWriter, Store, read_run
from muralab.tracking import queue as queue_module
from muralab.tracking.journal import Entry, Journal, read_journal
from muralab.tracking.operations import Batch, EndRun, LogText, Operation, new_start
from muralab.tracking.queue import WriteQueue, group_batches, merge_group
from muralab.tracking.tags import Tag
from tests.fixtures.runs import find_runs
from tests.tracking.conftest import UNKNOWN, FakeStore

Intercept = Callable[[str, Callable[[], Any]], Any]
WRITES = ("log_batch", "log_text", "log_artifact", "create_run", "set_terminated", "log_inputs")


def failing(times: int, name: str = "log_batch", error: Exception | None = None) -> Intercept:
    """Let the first calls of a method fail, by default as if the server refused the connection; the others answer."""
    left = [times]

    def intercept(called: str, call: Callable[[], Any]) -> Any:
        if called == name and left[0] > 0:
            left[0] -= 1
            raise error or ConnectionError("refused")
        return call()

    return intercept


class Switch:
    """A store that is away until it is switched on."""

    def __init__(self) -> None:
        self.on = threading.Event()

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        if not self.on.is_set():
            raise ConnectionError("refused")
        return call()


def counting(counts: dict[str, int]) -> Intercept:
    """Count the calls by name."""

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        counts[name] = counts.get(name, 0) + 1
        return call()

    return intercept


def too_large() -> MlflowException:
    return MlflowException("API request failed with error code 413 != 200. Response body: '<h1>Too Large</h1>'")


def run_queue(store: Any, *items: tuple[str, Operation], **options: Any) -> WriteQueue:
    """A queue that has written some items."""
    queue = WriteQueue(store, **{"patience_s": 5.0, **options})
    queue.start()
    for run, operation in items:
        queue.put(run, operation)
    queue.stop()
    return queue


def entries(*operations: Operation) -> list[Entry]:
    return [Entry(number, "r", operation) for number, operation in enumerate(operations)]


@pytest.fixture
def paused(local: Store) -> Any:
    """A queue whose first write waits until the event is set, so that what is queued meanwhile is written together."""
    release, first = threading.Event(), [True]

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        if first:
            first.clear()
            assert release.wait(60)
        return call()

    store: Any = FakeStore(local, intercept)
    queue = WriteQueue(store, patience_s=5)
    queue.start()
    queue.put(UNKNOWN, Batch(tags={"a": "1"}))
    yield queue, release
    release.set()
    queue.stop()


# Batches


def test_batches_keep_within_the_limits_of_mlflow(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        writer.log_params(parent, {f"p{i}": i for i in range(130)})
        writer.log_epoch(parent, 1, {f"m{i}": i for i in range(1010)})
        writer.set_tags(parent, {f"t{i}": i for i in range(130)})
        writer.flush()
    run = store.client.get_run(parent).data
    assert (len(run.params), len(run.metrics), run.tags["t129"]) == (130, 1010, "129")


@pytest.mark.parametrize(("n_metrics", "n_params", "n_calls"), [(1000, 0, 1), (1001, 0, 2), (900, 100, 1), (5, 101, 2)])
def test_a_batch_is_written_in_few_calls(local: Store, trial: str, n_metrics: int, n_params: int, n_calls: int) -> None:
    counts: dict[str, int] = {}
    metrics = [(f"m{i}", 1.0, 1, 0) for i in range(n_metrics)]
    client: Any = FakeStore(local, counting(counts))
    Batch(metrics=metrics, params={f"p{i}": "" for i in range(n_params)})(client, trial)
    assert counts == {"log_batch": n_calls}


def test_adjacent_batches_are_grouped() -> None:
    tags = [Batch(tags={"a": str(i)}) for i in range(4)]
    a, b, end, again, c, d = entries(*tags[:2], EndRun("FINISHED", 0), EndRun("FINISHED", 0), *tags[2:])
    assert list(group_batches([a, b, end, again, c, d])) == [[a, b], [end], [again], [c, d]]


def test_a_merged_batch_keeps_the_later_tag() -> None:
    points = [("loss", 1.0, step, 0) for step in (1, 2)]
    first = Batch(metrics=points[:1], tags={"a": "1", "b": "1"}, params={"p": "1"})
    merged = merge_group([first, Batch(metrics=points[1:], tags={"a": "2"}, params={"q": "2"})])
    assert merged == Batch(metrics=points, tags={"a": "2", "b": "1"}, params={"p": "1", "q": "2"})


def test_epochs_within_a_second_share_a_write(local: Store, trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "WRITE_INTERVAL_S", 60.0)  # much longer than the test takes
    counts: dict[str, int] = {}
    store: Any = FakeStore(local, counting(counts))
    with RunWriter(store) as writer:
        writer.log_epoch(trial, 0, {"loss": 1.0})
        writer.flush()
        for step in range(1, 20):
            writer.log_epoch(trial, step, {"loss": 1.0})
    assert counts == {"log_batch": 2}


def test_the_first_write_after_a_pause_does_not_wait(local: Store, trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "WRITE_INTERVAL_S", 60.0)
    written = threading.Event()
    store: Any = FakeStore(local, lambda name, call: (call(), written.set()))
    queue = WriteQueue(store)
    queue.start()
    queue.put(trial, Batch(tags={"a": "1"}))
    assert written.wait(30)
    queue.stop()


# A store that is away


def test_everything_is_written_in_order_once_the_store_is_back(local: Store, trial: str) -> None:
    switch = Switch()
    store: Any = FakeStore(local, switch)
    with RunWriter(store) as writer:
        for step in range(1, 4):
            writer.log_epoch(trial, step, {"loss": 1 / step})
            writer.set_tags(trial, {"step": step})
        writer.finish(trial)
        switch.on.set()
    record = read_run(local, trial)
    assert (list(record.history.index), record.tags["step"], record.status) == ([1, 2, 3], "3", "FINISHED")


def test_a_store_that_stays_away_is_an_error_and_the_rest_is_kept(local: Store, trial: str, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, store_uri=local.uri, command="tune")
    store: Any = FakeStore(local, Switch())
    queue, message = (
        WriteQueue(store, patience_s=0.5, journal=journal),
        r"not answered for .*refused.*2 writes are kept in",
    )
    queue.start()
    for step in (1, 2):
        queue.put(trial, Batch(metrics=[("loss", 1.0, step, 0)]))
    start_s = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=message):
        queue.flush()
    with pytest.raises(StoreUnavailableError, match=r"`muralab sync`"):  # and nobody waits again
        queue.stop(patience_s=60)
    assert time.monotonic() - start_s < 30
    assert len(read_journal(journal.folder).entries) == 2


def test_without_a_journal_the_error_says_that_the_rest_is_lost(local: Store, trial: str) -> None:
    store: Any = FakeStore(local, Switch())
    with pytest.raises(StoreUnavailableError, match="is lost"), RunWriter(store, patience_s=0.2) as writer:
        writer.log_epoch(trial, 1, {"loss": 1.0})


def test_an_outage_is_announced_once_with_its_end(
    local: Store, trial: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("muralab.tracking.outage.ANNOUNCED_AFTER_S", 0.3)
    switch = Switch()
    store: Any = FakeStore(local, switch)
    threading.Timer(1.5, switch.on.set).start()
    run_queue(store, (trial, Batch(tags={"a": "1"})), patience_s=60)
    first, last = caplog.messages
    assert "does not answer (refused). Training goes on" in first
    assert last.startswith("The tracking store answers again, after ")


def test_a_lost_response_does_not_start_a_run_twice(local: Store) -> None:
    lost = [True]

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        response = call()
        if name == "create_run" and lost:
            lost.clear()
            raise ConnectionError("the response was lost")
        return response

    flaky: Any = FakeStore(local, intercept)
    with RunWriter(flaky) as writer:
        run_id = writer.run_id(writer.start_run(kind="trial", name="t"))
        assert [record.run_id for record in find_runs(local)] == [run_id]


def test_a_run_that_a_late_request_creates_is_removed(local: Store) -> None:
    held: list[Callable[[], Any]] = []
    asked: list[str] = []

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        if name == "create_run" and not held and not asked:
            held.append(call)
            raise ConnectionError("no answer in time")
        if name == "set_terminated" and held:  # by now the server has carried out what it was asked first
            held.pop()()
            asked.append(name)
        return call()

    slow: Any = FakeStore(local, intercept)
    with RunWriter(slow) as writer:
        run = writer.run_id(writer.start_run(kind="trial", name="t"))
        writer.finish(run)
        writer.finish(writer.start_run(kind="trial", name="another"))
    assert sorted(record.name for record in find_runs(local)) == ["another", "t"]


# Items that fail although the store answers


def test_a_refused_artifact_costs_itself_alone(local: Store, trial: str) -> None:
    store: Any = FakeStore(local, failing(10**6, "log_text", too_large()))
    items = [LogText("x", "report.html"), Batch(tags={"after": "1"}), EndRun("FINISHED", 1)]
    queue = run_queue(store, *[(trial, item) for item in items])
    record = read_run(local, trial)
    assert (record.tags["after"], record.status) == ("1", "FINISHED")
    assert "could not log report.html: API request failed with error code 413" in record.tags[Tag.NOT_LOGGED]
    assert ["client_max_body_size" in one.remedy for one in queue.refusals] == [True]


def test_an_artifact_store_that_is_away_does_not_hold_up_the_rest(local: Store, trial: str) -> None:
    written: list[str] = []

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        if name == "log_text" and written.count("log_text") < 2:
            written.append(name)
            raise ConnectionError("bucket")
        written.append(name)
        return call()

    store: Any = FakeStore(local, intercept)
    queue = run_queue(store, (trial, LogText("x", "a.txt")), (trial, Batch(tags={"after": "1"})))
    assert written.index("log_batch") < len(written) - 1 - written[::-1].index("log_text")
    assert (queue.refusals, read_run(local, trial).tags["after"]) == ([], "1")


@pytest.mark.parametrize("item", [LogText("x", "a.txt"), Batch(tags={"a": "1"})], ids=["artifact", "tag"])
def test_an_item_that_fails_for_too_long_is_refused(local: Store, trial: str, item: Operation) -> None:
    name = "log_text" if isinstance(item, LogText) else "log_batch"
    store: Any = FakeStore(local, failing(10**6, name, MlflowException("oops failed with error code 500")))
    queue = run_queue(store, (trial, item), (trial, EndRun("FINISHED", 1)), patience_s=0.5)
    assert ["oops" in one.reason for one in queue.refusals] == [True]
    assert read_run(local, trial).status == "FINISHED"


def test_before_the_work_a_failing_artifact_store_is_not_waited_for(local: Store, trial: str) -> None:
    error = MlflowException("API request to /mlflow-artifacts/ failed with error code 500")
    queue = WriteQueue(FakeStore(local, failing(10**6, "log_text", error)), patience_s=600)  # type: ignore[arg-type]
    queue.start()
    queue.put(trial, LogText("x", "a.txt"))
    queue.flush(item_patience_s=0.3)
    assert ["its log names the reason" in one.remedy for one in queue.refusals] == [True]
    queue.stop()


def test_a_failure_of_a_moment_loses_nothing(local: Store, trial: str) -> None:
    flaky: Any = FakeStore(local, failing(2))
    with RunWriter(flaky) as writer:
        for step in range(1, 4):
            writer.log_epoch(trial, step, {"loss": 1.0})
    assert list(read_run(local, trial).history.index) == [1, 2, 3]


def test_an_invalid_write_does_not_affect_others(local: Store, trial: str, paused: Any) -> None:
    queue, release = paused
    queue.put(trial, Batch(metrics=[("bad%name", 1.0, 1, 0)]))
    queue.put(trial, Batch(metrics=[("good", 1.0, 2, 0)]))
    release.set()
    queue.flush()
    assert "Names may only contain" in queue.refusals[-1].reason
    assert read_run(local, trial).metrics == {"good": 1.0}


def test_what_is_refused_stays_in_the_journal(local: Store, trial: str, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, store_uri=local.uri, command="tune")
    store: Any = FakeStore(local, failing(10**6, "log_text", too_large()))
    run_queue(store, (trial, LogText("x", "a.txt")), (trial, Batch(tags={"a": "1"})), journal=journal)
    content = read_journal(journal.folder)
    assert [entry.operation for entry in content.entries.values()] == [LogText("x", "a.txt")]
    assert "413" in content.refused[1]


def test_writes_into_a_run_that_could_not_be_started_are_refused_with_its_reason(local: Store) -> None:
    start = new_start(experiment=None, kind="trial", name="t", tags={}, parent=UNKNOWN)
    run = start.temporary_id
    queue = run_queue(local, (run, start), (run, Batch(tags={"a": "1"})))
    assert queue.id_of(run) is None
    assert "find the run 0000" in queue.refusals[0].reason
    assert queue.refusals[1].reason.startswith("The run could not be started:")


def test_a_run_whose_start_is_refused_has_no_id(local: Store) -> None:
    with pytest.raises(StoreError, match=r"could not start 't'"), RunWriter(local) as writer:
        writer.run_id(writer.start_run(kind="trial", name="t", parent=UNKNOWN))


def test_a_run_that_is_deleted_meanwhile_is_named_with_its_remedy(local: Store, trial: str) -> None:
    local.client.delete_run(trial)
    queue = run_queue(local, (trial, Batch(tags={"a": "1"})), (trial, EndRun("FINISHED", 1)))
    assert {one.remedy for one in queue.refusals} == {
        f"The run has been deleted. Restore it (`mlflow runs restore --run-id {trial}`), then `muralab sync` writes "
        "what was refused."
    }


# Runs


def test_a_run_may_be_nested_in_one_that_is_not_started_yet(local: Store) -> None:
    with RunWriter(local) as writer:
        parent = writer.start_run(kind="tune", name="sweep")
        child = writer.start_run(kind="trial", name="t", parent=parent)
        assert read_run(local, writer.run_id(child)).parent == writer.run_id(parent)


def test_a_run_starts_when_it_was_queued(local: Store, paused: Any) -> None:
    queue, release = paused
    start = new_start(experiment=None, kind="trial", name="t", tags={}, parent=None)
    queue.put(start.temporary_id, start)
    assert queue.id_of(start.temporary_id) is None
    release.set()
    queue.flush()
    assert local.client.get_run(queue.id_of(start.temporary_id)).info.start_time == start.queued_ms


def test_a_writer_that_was_not_started_is_a_bug(local: Store) -> None:
    with pytest.raises(RuntimeError, match="use it in a `with` block"):
        RunWriter(local).flush()
