"""Runs written and read back, with a local database and, marked slow, with a real `mlflow server`."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from muralab.errors import StoreError
from muralab.tracking import (
    RunWriter,
    Store,
    absolute_uri,
    adopt_run,
    close_dead_runs,
    download_artifact,
    experiment_of,
    is_alive,
    open_store,
    read_children,
    read_run,
    start_run,
)
from muralab.tracking.operations import Call
from muralab.tracking.process import process_started
from tests.fixtures.runs import find_runs

PLATFORM = Path(__file__).parents[2] / "platform"
PREDICTIONS = pd.DataFrame(
    {"image": ["007", "NA"], "study": ["s1", "s2"], "patient": ["p1", "p2"], "part": "wrist", "label": [0, 1],
     "logit": [1 / 3, -2e-17]}
)  # fmt: skip


class FakeStore:
    """A store whose client's calls go through a function of (name, call)."""

    def __init__(self, store: Store, around: Callable[[str, Callable[[], Any]], Any]) -> None:
        self.uri, self.is_remote, self.sqlite_path = store.uri, store.is_remote, store.sqlite_path
        self._client, self._around = store.client, around

    @property
    def client(self) -> FakeStore:
        return self

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._around(name, lambda: method(*args, **kwargs))


@pytest.fixture
def local(empty_database: Path, tmp_path: Path) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return open_store(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture(params=["local", pytest.param("server", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> Store:
    """Either kind of store."""
    if request.param == "local":
        return request.getfixturevalue("local")
    return open_store(request.getfixturevalue("tracking_server"))


@pytest.fixture
def parent(store: Store) -> str:
    return start_run(store, experiment="mura wrist", kind="tune", name="sweep")


# Where a store is


def test_uris_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri(None) == absolute_uri("sqlite:///mlflow.db") == absolute_uri("mlflow.db")
    assert absolute_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("http://127.0.0.1:5000/") == "http://127.0.0.1:5000"
    assert absolute_uri("file:runs") == absolute_uri("runs") == (tmp_path / "runs").as_uri()


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(StoreError, match=r"lives in memory.*Name a file"):
        absolute_uri("sqlite:///:memory:")


def test_a_folder_of_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder of files.*sqlite:///mlflow.db"):
        open_store(str(tmp_path / "mlruns"))


def test_a_database_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder .*absent does not exist"):
        open_store(f"sqlite:///{tmp_path}/absent/mlflow.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not what it seems " * 100)
    with pytest.raises(StoreError, match="Name another file"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_server_that_is_down_is_named_at_once() -> None:
    start_s = time.monotonic()
    with pytest.raises(StoreError, match=r"http://127.0.0.1:9 does not answer.*mlflow server"):
        open_store("http://127.0.0.1:9", timeout_s=5)
    assert time.monotonic() - start_s < 30  # MLflow itself retries for minutes


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StoreError, match="does not answer"):
        open_store(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)


@pytest.mark.slow
def test_two_processes_may_open_an_empty_database_at_once(tmp_path: Path) -> None:
    code = f"from muralab.tracking import open_store; open_store('sqlite:///{tmp_path}/mlflow.db')"
    processes = [_python(code) for _ in range(2)]
    assert [process.wait(600) for process in processes] == [0, 0]


# Writing and reading back


def test_a_trial_is_read_back_as_it_was_written(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        trial = writer.start_run(kind="trial", name="t", parent=parent, tags={"muralab.recipe": "cnn"})
        for step in (1, 2):
            writer.log_epoch(trial, step, {"val_loss": 1 / step})
        writer.log_resolved(trial, {"full.lr": 3e-5})
        writer.finish(trial)
    (record,) = read_children(store, parent)
    assert (record.parent, record.kind, record.recipe, record.status) == (parent, "trial", "cnn", "FINISHED")
    assert record.history["val_loss"].to_dict() == {1: 1.0, 2: 0.5}
    assert record.params == {"resolved.full.lr": "3e-05"}
    assert record.experiment_id == experiment_of(store, parent)


def test_undefined_and_infinite_metrics_survive(store: Store, parent: str) -> None:
    values = {"undefined": math.nan, "up": math.inf, "down": -math.inf, "fine": 0.1}
    with RunWriter(store) as writer:
        writer.log_epoch(parent, 1, values)
    record = read_run(store, parent)
    assert {key: repr(value) for key, value in record.metrics.items()} == {k: repr(v) for k, v in values.items()}
    assert record.history.loc[1, "up"] == math.inf


def test_predictions_keep_every_digit_and_name(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        writer.log_predictions(parent, "test", PREDICTIONS)
    pd.testing.assert_frame_equal(read_run(store, parent).predictions["test"], PREDICTIONS)


def test_missing_predictions_are_said_in_words(store: Store, parent: str) -> None:
    with pytest.raises(StoreError, match=r"holds no predictions of 'test': none\."):
        read_run(store, parent).predictions["test"]


def test_files_and_texts_come_back(store: Store, parent: str, tmp_path: Path) -> None:
    (tmp_path / "head.bin").write_bytes(b"\x00\x01")
    with RunWriter(store) as writer:
        writer.log_file(parent, tmp_path / "head.bin", "weights")
        writer.log_file(parent, tmp_path / "head.bin")
        writer.log_text(parent, "<p>\u00e9</p>", "report.html")
    assert download_artifact(store, parent, "weights", tmp_path / "a").joinpath("head.bin").read_bytes() == b"\x00\x01"
    assert download_artifact(store, parent, "head.bin", tmp_path / "b").read_bytes() == b"\x00\x01"
    assert download_artifact(store, parent, "report.html", tmp_path / "c").read_text("utf-8") == "<p>\u00e9</p>"


def test_a_missing_artifact_is_named(store: Store, parent: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"read 'absent.csv' of the run {parent}"):
        download_artifact(store, parent, "absent.csv", tmp_path)


def test_a_data_set_is_logged_with_our_digest(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        writer.log_dataset(parent, name="wrist train", digest="a" * 36, source="/data", context="training",
                           profile={"n_images": 3}, columns={"image": "string"})  # fmt: skip
    (entry,) = store.client.get_run(parent).inputs.dataset_inputs
    assert (entry.dataset.digest, entry.tags[0].value) == ("a" * 36, "training")
    assert '"n_images": 3' in entry.dataset.profile
    assert '"name": "image"' in entry.dataset.schema


def test_batches_keep_within_the_limits_of_mlflow(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        writer.log_params(parent, {f"p{i}": i for i in range(130)})
        writer.log_epoch(parent, 1, {f"m{i}": i for i in range(1010)})
        writer.set_tags(parent, {f"t{i}": i for i in range(130)})
        writer.flush()
    run = store.client.get_run(parent).data
    assert (len(run.params), len(run.metrics), run.tags["t129"]) == (130, 1010, "129")


def test_long_values_are_shortened_and_say_so(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        writer.log_params(parent, {"long": "x" * 7000})
        writer.set_tags(parent, {"long": "x" * 9000})
    record = read_run(store, parent)
    assert (len(record.params["long"]), len(record.tags["long"])) == (6000, 8000)
    assert record.params["long"].endswith("x... [shortened: 7000 characters]")


def test_an_unknown_run_is_said_in_words(store: Store) -> None:
    with pytest.raises(StoreError, match=r"has no run 'nonsense'.*MLFLOW_TRACKING_URI"):
        read_run(store, "nonsense")
    with pytest.raises(StoreError, match="has no run 'it's'"):
        read_run(store, "it's")
    with pytest.raises(StoreError, match="has no run"):
        read_children(store, "0" * 32)


def test_search_goes_past_a_page(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muralab.tracking.runs.PAGE", 2)
    parent = start_run(local, kind="tune", name="sweep")
    for i in range(5):
        start_run(local, kind="trial", name=str(i), parent=parent)
    assert [run.name for run in read_children(local, parent)] == list("01234")


def test_artifacts_of_a_new_experiment_lie_beside_the_database(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    run_id = start_run(local, experiment="mura wrist", kind="tune", name="sweep")
    assert local.client.get_run(run_id).info.artifact_uri.startswith((tmp_path / "mlruns" / "mura-wrist").as_uri())


# Identity, adopting and resuming


def test_a_changed_param_is_refused_in_words(local: Store) -> None:
    run_id = start_run(local, kind="tune", name="sweep")
    local.client.log_param(run_id, "part", "wrist")
    with RunWriter(local) as writer:
        writer.adopt_run(run_id)
        with pytest.raises(StoreError, match="param part = 'wrist', which MLflow does not let 'hand' replace"):
            writer.log_params(run_id, {"part": "hand"})
        writer.log_resolved(run_id, {"part": "hand"})
        writer.finish(run_id)
    assert read_run(local, run_id).params == {"part": "wrist", "resolved.part": "hand"}


def test_an_adopted_run_keeps_its_own_tags(store: Store) -> None:
    tags = {"mlflow.source.name": "https://example.org/lab", "mlflow.user": "ada"}
    run_id = store.client.create_run("0", tags=tags).info.run_id
    adopt_run(store, run_id, {"muralab.part": "wrist"})
    record = read_run(store, run_id)
    assert (record.kind, record.part, record.tags["muralab.pid"]) == ("tune", "wrist", str(os.getpid()))
    assert tags.items() <= record.tags.items()


def test_a_resumed_run_holds_each_step_once(store: Store, parent: str) -> None:
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


def test_a_resumed_run_runs_again_and_ends(local: Store) -> None:
    run_id = start_run(local, kind="trial", name="t")
    local.client.set_terminated(run_id, "KILLED")
    with RunWriter(local) as writer:
        writer.resume_run(run_id)
        assert read_run(local, run_id).status == "RUNNING"
        writer.finish(run_id)
    assert (read_run(local, run_id).status, read_run(local, run_id).kind) == ("FINISHED", "trial")


# Ends


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED"), (None, "FAILED")],
)
def test_open_runs_are_ended_and_the_queue_is_written(
    local: Store, error: type[BaseException] | None, status: str
) -> None:
    writer = RunWriter(local)
    try:
        with writer:
            writer.log_epoch(writer.start_run(kind="trial", name="t"), 1, {"loss": 1.0})
            if error:
                raise error
    except (ValueError, KeyboardInterrupt, SystemExit):
        pass
    (record,) = find_runs(local)
    assert (record.status, record.metrics) == (status, {"loss": 1.0})


def test_a_finished_run_stays_finished_after_an_error(local: Store) -> None:
    error = ValueError("boom")
    with pytest.raises(ValueError, match="boom"), RunWriter(local) as writer:
        _raise_after(writer.finish, writer.start_run(kind="trial", name="t"), error)
    assert find_runs(local)[0].status == "FINISHED"


def test_a_run_finished_by_its_id_stays_finished(local: Store) -> None:
    with RunWriter(local) as writer:
        writer.finish(writer.run_id(writer.start_run(kind="tune", name="sweep")))
    assert [record.status for record in find_runs(local)] == ["FINISHED"]


def _raise_after(call: Callable[[str], None], run: str, error: Exception) -> None:
    call(run)
    raise error


@pytest.mark.slow
def test_a_killed_process_leaves_runs_that_the_next_command_closes(local: Store) -> None:
    code = (
        "import os, signal; from muralab.tracking import *\n"
        f"store = open_store('{local.uri}'); parent = start_run(store, kind='tune', name='sweep')\n"
        "with RunWriter(store) as writer:\n"
        "    writer.start_run(kind='trial', name='t', parent=parent); writer.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert _python(code).wait(600) == -signal.SIGKILL
    assert len(close_dead_runs(local)) == 2
    assert {record.status for record in find_runs(local)} == {"KILLED"}
    assert find_runs(local)[0].tags["muralab.closed_after"] == "the process was gone"


@pytest.mark.parametrize(
    "tags", [{}, {"muralab.host": "elsewhere", "muralab.pid": "1"}, {"muralab.process_started": "unknown"}]
)
def test_runs_of_the_living_and_of_other_hosts_are_left_alone(local: Store, tags: dict[str, str]) -> None:
    start_run(local, kind="tune", name="mine", tags=tags)
    assert close_dead_runs(local) == []


def test_a_run_of_a_reused_pid_is_closed(local: Store) -> None:
    started = read_run(local, start_run(local, kind="tune", name="mine")).tags["muralab.process_started"]
    run_id = start_run(local, kind="tune", name="old", tags={"muralab.process_started": started[:-1] + "x"})
    assert close_dead_runs(local) == [run_id]


def test_the_run_of_mlflow_run_is_this_processes_before_anything_is_written(local: Store) -> None:
    run_id = local.client.create_run("0").info.run_id
    assert close_dead_runs(local, claim=run_id) == []
    assert is_alive(read_run(local, run_id).tags)


def test_a_zombie_counts_as_gone(local: Store) -> None:
    process = subprocess.Popen(["sleep", "60"])
    tags = {"muralab.pid": process.pid, "muralab.process_started": process_started(process.pid)}
    run_id = start_run(local, kind="tune", name="its", tags=tags)
    assert close_dead_runs(local) == []
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert close_dead_runs(local) == [run_id]
    process.wait()


# Failures of the store


def _failing(times: int, error: Callable[[], Exception]) -> Callable[[str, Callable[[], Any]], Any]:
    left = [times]

    def around(name: str, call: Callable[[], Any]) -> Any:
        if name == "log_batch" and left[0] > 0:
            left[0] -= 1
            raise error()
        return call()

    return around


def test_a_store_that_is_down_for_a_moment_loses_nothing(local: Store) -> None:
    run_id = start_run(local, kind="trial", name="t")
    flaky: Any = FakeStore(local, _failing(2, lambda: ConnectionError("refused")))
    with RunWriter(flaky) as writer:
        for step in range(1, 4):
            writer.log_epoch(run_id, step, {"loss": 1.0})
    assert list(read_run(local, run_id).history.index) == [1, 2, 3]


def test_a_store_that_stays_down_is_an_error_and_not_a_hang(local: Store) -> None:
    run_id = start_run(local, kind="trial", name="t")
    down: Any = FakeStore(local, _failing(10**6, lambda: ConnectionError("refused")))
    start_s, words = time.monotonic(), r"could not log metrics.*refused.*failed for 0.5 s"
    with pytest.raises(StoreError, match=words), RunWriter(down, patience_s=0.5) as writer:
        writer.log_epoch(run_id, 1, {"loss": 1.0})
    assert time.monotonic() - start_s < 30


def test_the_next_call_raises_what_could_not_be_written(local: Store) -> None:
    writer = RunWriter(local)
    writer._outbox.start()
    writer.log_epoch("0" * 32, 1, {"loss": 1.0})
    for call in (writer.flush, lambda: writer.log_epoch("1" * 32, 1, {"loss": 1.0}), writer.close):
        with pytest.raises(StoreError, match=f"could not log metrics, params or tags of the run {'0' * 32}"):
            call()


def test_a_refused_write_does_not_take_others_with_it(local: Store) -> None:
    run_id = start_run(local, kind="trial", name="t")
    with pytest.raises(StoreError, match="Names may only contain"), RunWriter(local) as writer:
        _log_steps(writer, run_id, {1: {"bad%name": 1.0}, 2: {"good": 1.0}})
    assert read_run(local, run_id).metrics == {"good": 1.0}


def _log_steps(writer: RunWriter, run_id: str, steps: dict[int, dict[str, float]]) -> None:
    held = threading.Event()
    writer._outbox.put(run_id, Call(lambda client, run: held.wait(60), "wait"))  # so that the rest gathers
    for step, metrics in steps.items():
        writer.log_epoch(run_id, step, metrics)
    held.set()


def test_a_missing_file_is_an_error(local: Store, tmp_path: Path) -> None:
    run_id = start_run(local, kind="trial", name="t")
    with pytest.raises(StoreError, match=r"could not log .*absent\.bin"), RunWriter(local) as writer:
        writer.log_file(run_id, tmp_path / "absent.bin")


def test_what_could_not_be_written_is_noted_on_the_error_that_ended_the_block(local: Store, tmp_path: Path) -> None:
    run_id, error = start_run(local, kind="trial", name="t"), ValueError("boom")
    with pytest.raises(ValueError, match="boom"), RunWriter(local) as writer:
        _raise_after(lambda run: writer.log_file(run, tmp_path / "absent.bin"), run_id, error)
    (note,) = error.__notes__
    assert "absent.bin" in note


def test_the_writers_own_error_is_not_said_twice(local: Store, tmp_path: Path) -> None:
    run_id = start_run(local, kind="trial", name="t")
    with pytest.raises(StoreError, match=r"absent\.bin") as caught, RunWriter(local) as writer:
        _log_and_wait(writer, run_id, tmp_path / "absent.bin")
    assert getattr(caught.value, "__notes__", []) == []


def _log_and_wait(writer: RunWriter, run_id: str, path: Path) -> None:
    writer.log_file(run_id, path)
    writer.flush()


def test_a_lost_answer_does_not_start_a_run_twice(local: Store) -> None:
    lost = [True]

    def around(name: str, call: Callable[[], Any]) -> Any:
        answer = call()
        if name == "create_run" and lost:
            lost.clear()
            raise ConnectionError("the answer was lost")
        return answer

    flaky: Any = FakeStore(local, around)
    with RunWriter(flaky) as writer:
        run_id = writer.run_id(writer.start_run(kind="trial", name="t"))
        assert [record.run_id for record in find_runs(local)] == [run_id]


def test_a_slow_store_does_not_hold_up_the_caller(local: Store) -> None:
    logged = threading.Event()

    def around(name: str, call: Callable[[], Any]) -> Any:
        assert logged.wait(60)
        return call()

    slow: Any = FakeStore(local, around)
    with RunWriter(slow) as writer:
        trial = writer.start_run(kind="trial", name="t")
        for step in range(1, 21):
            writer.log_epoch(trial, step, {"loss": 1.0})
        logged.set()
    assert len(find_runs(local)[0].history) == 20


def _python(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(PLATFORM)})
