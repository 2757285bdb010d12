"""The write queue: batches, order, retries, and the failures that remain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from muralab.errors import StoreError
from muralab.tracking import RunWriter, Store, read_run
from muralab.tracking import queue as queue_module
from muralab.tracking.queue import Batch, Call, StartRun, WriteQueue, group_batches, is_temporary, merge_group
from tests.fixtures.runs import find_runs
from tests.tracking.conftest import UNKNOWN, FakeStore

Intercept = Callable[[str, Callable[[], Any]], Any]


def failing(times: int) -> Intercept:
    """Let the first calls of `log_batch` fail as if the server refused the connection."""
    left = [times]

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        if name == "log_batch" and left[0] > 0:
            left[0] -= 1
            raise ConnectionError("refused")
        return call()

    return intercept


def counting(counts: dict[str, int]) -> Intercept:
    """Count the calls by name."""

    def intercept(name: str, call: Callable[[], Any]) -> Any:
        counts[name] = counts.get(name, 0) + 1
        return call()

    return intercept


@pytest.fixture
def paused(local: Store) -> Any:
    """A queue whose thread waits until the event is set, so that what is queued meanwhile is written together."""
    queue, release = WriteQueue(local, patience_s=1), threading.Event()
    queue.start()
    queue.put("wait", Call(lambda client, run: release.wait(60), "wait"))
    yield queue, release
    release.set()
    queue._stopped.set()
    queue._queue.put(threading.Event())


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
    batches, call = [Batch(tags={"a": str(i)}) for i in range(4)], Call(print, "print")
    groups = list(group_batches([*batches[:2], call, call, *batches[2:]]))
    assert groups == [batches[:2], [call], [call], batches[2:]]


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
    queue = WriteQueue(local, patience_s=1)
    queue.start()
    queue.put(trial, Call(lambda client, run: written.set(), "write"))
    assert written.wait(30)
    queue.stop()


# Retries and failures


def test_a_store_that_is_down_for_a_moment_loses_nothing(local: Store, trial: str) -> None:
    flaky: Any = FakeStore(local, failing(2))
    with RunWriter(flaky) as writer:
        for step in range(1, 4):
            writer.log_epoch(trial, step, {"loss": 1.0})
    assert list(read_run(local, trial).history.index) == [1, 2, 3]


def test_a_store_that_stays_down_is_an_error(local: Store, trial: str) -> None:
    down: Any = FakeStore(local, failing(10**6))
    start_s, message = time.monotonic(), r"could not log metrics.*refused.*failed for 0.5 s"
    with pytest.raises(StoreError, match=message), RunWriter(down, patience_s=0.5) as writer:
        writer.log_epoch(trial, 1, {"loss": 1.0})
    assert time.monotonic() - start_s < 30


def test_pauses_double_up_to_a_limit(local: Store, trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(queue_module.time, "sleep", pauses.append)
    flaky: Any = FakeStore(local, failing(7))
    with RunWriter(flaky) as writer:
        writer.log_epoch(trial, 1, {"loss": 1.0})
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_nothing_is_written_after_the_store_has_failed(local: Store, trial: str, monkeypatch: Any) -> None:
    queue = WriteQueue(FakeStore(local, failing(1)), patience_s=0)  # type: ignore[arg-type]
    queue.start()
    queue.put(trial, Batch(tags={"first": "1"}))
    queue.put(trial, Call(lambda client, run: client.set_tag(run, "second", "2"), "tag"))
    with pytest.raises(StoreError, match="everything queued after it was not written"):
        queue.stop()
    assert "second" not in read_run(local, trial).tags


@pytest.mark.parametrize(
    "call",
    [
        lambda writer: writer.flush(),
        lambda writer: writer.log_epoch("1", 1, {"loss": 1.0}),
        lambda writer: writer.finish("1"),
        lambda writer: writer.close(),
    ],
    ids=["flush", "log_epoch", "finish", "close"],
)
def test_the_next_call_raises_the_failure(local: Store, call: Callable[[RunWriter], None]) -> None:
    message = f"could not log metrics, params or tags of the run {UNKNOWN}"
    writer = RunWriter(local)
    writer.__enter__()
    writer.log_epoch(UNKNOWN, 1, {"loss": 1.0})
    with pytest.raises(StoreError, match=message):
        writer.flush()
    with pytest.raises(StoreError, match=message):
        call(writer)
    with pytest.raises(StoreError, match=message):
        writer.close()


def test_the_first_failure_is_kept(local: Store) -> None:
    queue = WriteQueue(local, patience_s=1)
    queue.start()
    for run in ("a" * 32, "b" * 32):
        queue.put(run, Batch(tags={"t": "1"}), check=False)
    with pytest.raises(StoreError, match="of the run aaaa") as caught:
        queue.stop()
    assert isinstance(caught.value.__cause__, MlflowException)


def test_an_invalid_write_does_not_affect_others(local: Store, trial: str, paused: Any) -> None:
    queue, release = paused
    queue.put(trial, Batch(metrics=[("bad%name", 1.0, 1, 0)]))
    queue.put(trial, Batch(metrics=[("good", 1.0, 2, 0)]))
    release.set()
    with pytest.raises(StoreError, match="Names may only contain"):
        queue.flush()
    assert read_run(local, trial).metrics == {"good": 1.0}


def test_writes_into_a_run_that_could_not_be_started_are_dropped(local: Store) -> None:
    start = StartRun(experiment=None, kind="trial", name="t", tags={}, parent=UNKNOWN)
    queue = WriteQueue(local, patience_s=1)
    queue.start()
    queue.put(start.temporary_id, start)
    queue.put(start.temporary_id, Batch(tags={"a": "1"}), check=False)
    with pytest.raises(StoreError, match="find the run 0000"):
        queue.stop()
    assert queue.id_of(start.temporary_id) is None


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


def test_a_run_may_be_nested_in_one_that_is_not_started_yet(local: Store) -> None:
    with RunWriter(local) as writer:
        parent = writer.start_run(kind="tune", name="sweep")
        child = writer.start_run(kind="trial", name="t", parent=parent)
        assert read_run(local, writer.run_id(child)).parent == writer.run_id(parent)


def test_a_run_starts_when_it_was_queued(local: Store, paused: Any) -> None:
    queue, release = paused
    start = StartRun(experiment=None, kind="trial", name="t", tags={}, parent=None)
    queue.put(start.temporary_id, start)
    assert queue.id_of(start.temporary_id) is None
    release.set()
    queue.flush()
    assert local.client.get_run(queue.id_of(start.temporary_id)).info.start_time == start.queued_ms


def test_a_writer_that_was_not_started_is_a_bug(local: Store) -> None:
    with pytest.raises(RuntimeError, match="use it in a `with` block"):
        RunWriter(local).flush()


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (ConnectionError("refused"), True),
        (OSError("disk full"), True),
        (MlflowException("busy"), True),
        (MlflowException("bad name", error_code=1000), False),  # INVALID_PARAMETER_VALUE
        (FileNotFoundError("absent"), False),
        (PermissionError("not yours"), False),
        (IsADirectoryError("folder"), False),
        (NotADirectoryError("file"), False),
        (ValueError("bug"), False),
        (StoreError("deleted experiment"), False),
    ],
    ids=repr,
)
def test_only_failures_of_network_and_disk_are_temporary(error: Exception, temporary: bool) -> None:
    assert is_temporary(error) == temporary


def test_a_failure_is_classified_by_its_cause() -> None:
    error = StoreError("could not find the run")
    error.__cause__ = ConnectionError("refused")
    assert is_temporary(error)
