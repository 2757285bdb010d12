"""The process that runs Ray: what Ray is started with, and how deaths are told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from muralab.errors import StorageError, StorageUnavailableError
from muralab.tune import memory_kills, node, ray_process
from muralab.tune.memory_kills import count_memory_kills, is_out_of_memory
from muralab.tune.ray_cluster import FOR_THE_COMMAND, existing_ray, own_ray
from muralab.tune.ray_handle import OF_THE_STORE, is_alive
from tests.processes import environment


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What `ray.init` is given, and the environment that it sees."""
    import ray

    given: dict[str, Any] = {}
    monkeypatch.setattr(os, "environ", {"PYTHONPATH": "", "HOME": str(tmp_path)})
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options, environment=dict(os.environ)))
    return given


@pytest.fixture
def started(given: dict[str, Any]) -> dict[str, Any]:
    with own_ray(1, 0, "/tmp/muralab-x"):
        return given


def test_ray_is_given_a_token_so_that_it_writes_none_into_the_home_folder(started: dict[str, Any]) -> None:
    assert len(started["environment"]["RAY_AUTH_TOKEN"]) == 32


def test_rays_files_lie_in_the_commands_folder(started: dict[str, Any]) -> None:
    assert started["_temp_dir"] == "/tmp/muralab-x"
    assert not started["include_dashboard"]


@pytest.mark.parametrize("token", ["", "theirs"])
def test_an_existing_cluster_is_joined_and_not_configured(given: dict[str, Any], token: str) -> None:
    os.environ.update({"RAY_AUTH_TOKEN": token} if token else {})
    with existing_ray("10.0.0.1:6379", ["/x/muralab"]):
        pass
    mode = given["environment"].get("RAY_AUTH_MODE"), given["environment"].get("RAY_AUTH_TOKEN")
    assert mode == (("token", "theirs") if token else (None, None))
    assert (given["address"], given["runtime_env"]["py_modules"]) == ("10.0.0.1:6379", ["/x/muralab"])
    assert not {"num_cpus", "num_gpus", "object_store_memory", "_temp_dir", "include_dashboard"} & set(given)
    assert "working_dir" not in given["runtime_env"]


class Sent(ray_process.Events):
    """Events that are kept."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, event: str, **fields: Any) -> None:
        self.sent.append({"event": event, **fields})


def test_a_death_is_blamed_on_the_node_if_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"n1": "gpu1", "n2": "gpu2"}
    monkeypatch.setattr(ray_process, "node_names", lambda: dict(nodes))
    events = Sent()
    report = ray_process._Report(events)
    report.result("a", {"node": "n2"})
    assert not report.died("a", "its process was killed")
    del nodes["n2"]
    assert report.died("a", "its node is gone")
    report.lost("a", "again")
    nodes["n1"] = "a-host-with-one-node-left"
    report.result("a", {"node": "n1"})
    assert [one.get("lost_node", one.get("node")) for one in events.sent] == ["gpu2", "", "gpu2", "gpu2", "gpu1"]


def test_a_node_may_be_missed_later_than_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def node_names() -> dict[str, str]:
        asked.append(1)
        return {"n2": "gpu2"} if len(asked) < 4 else {}

    monkeypatch.setattr(ray_process, "node_names", node_names)
    monkeypatch.setattr(ray_process, "TICK_S", 0.01)
    report = ray_process._Report(Sent())
    monkeypatch.setattr(report.events, "tick", lambda: None)
    report.node_death_s = 60.0
    report.result("a", {"node": "n2"})
    assert report.died("a", "its process is gone")


@pytest.mark.parametrize("again", [True, False])
def test_a_node_that_cannot_train_is_excluded_and_not_its_trials_fault(
    monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    import ray

    nodes = [{"NodeID": f"n{number}", "Alive": True, "Resources": {"CPU": 2.0}} for number in (1, 2)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_process, "node_names", lambda: {"n1": "gpu1", "n2": "gpu2"})
    events = Sent()
    report = ray_process._Report(events)
    report.unfit.needed = {"CPU": 1}
    report.result("a", {"node": "n2"})
    report.result("a", {"unfit": "torch 2.0"})
    assert report.died("a", "UnfitNodeError") if again else report.lost("a", "UnfitNodeError") is None
    expected = {"name": "a", "node_id": "n2", "node": "gpu2", "reason": "torch 2.0", "again": again, "any_left": True}
    assert events.sent[-1] == {"event": "unfit", **expected}
    assert report.unfit.ids == {"n2"}
    report.result("a", {"node": "n1"})
    assert not report.died("a", "its process was killed")  # a later death has a reason of its own


def test_the_metrics_of_an_epoch_arrive_as_numbers_though_tune_sees_a_text() -> None:
    events, metrics = Sent(), {"val_loss": 0.1 + 0.2, "phase": 1.0}
    report = ray_process._Report(events)
    report.result("a", dict.fromkeys(ray_process.REPORTED, 1) | {"metrics": json.dumps(metrics)})
    assert events.sent[0]["result"]["metrics"] == metrics


def test_a_kill_by_rays_memory_monitor_is_recognised() -> None:
    from ray.exceptions import OutOfMemoryError, RayActorError

    def raised(cause: Exception) -> BaseException:
        try:
            raise RuntimeError(f"Caught unexpected exception: {cause}") from cause
        except RuntimeError as error:
            return error

    assert is_out_of_memory(raised(OutOfMemoryError("Task was killed due to the node running low on memory.")))
    assert not is_out_of_memory(raised(RayActorError()))


@pytest.mark.parametrize(
    ("last", "how", "diverged"),
    [
        ({"complete": True}, "finished", False),
        ({"complete": False}, "pruned", False),
        ({}, "pruned", False),
        ({"failed": "It broke.", "disk": "", "diverged": True}, "failed", True),
    ],
)
def test_a_trials_end_is_that_of_its_last_report(last: dict[str, Any], how: str, diverged: bool) -> None:
    ending = ray_process._ending(last)
    assert (ending["how"], ending["diverged"]) == (how, diverged)


def test_what_a_node_hides_is_what_the_command_keeps_to_itself() -> None:
    assert {name for name in FOR_THE_COMMAND if not name.startswith(OF_THE_STORE)} == set()
    assert {"PGPASSWORD", "PGPASSFILE", "MLFLOW_TRACKING_TOKEN"} < set(FOR_THE_COMMAND)


@pytest.mark.parametrize("error", [StorageUnavailableError("down"), StorageError("down")])
def test_a_trial_reports_that_its_storage_is_away(monkeypatch: pytest.MonkeyPatch, error: StorageError) -> None:
    def fail(_: object) -> None:
        raise error

    import ray.tune

    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(node, "open_trial", fail)
    monkeypatch.setattr(ray.tune, "report", reports.append)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n"))
    ray_process._work({"storage": "/x", "is_cluster": False})
    ending = ray_process._ending(reports[-1])
    assert ending["reason"] == "down"
    assert ending["outage"] is isinstance(error, StorageUnavailableError)


def test_of_what_ray_says_about_a_death_one_line_is_kept() -> None:
    trial = SimpleNamespace(
        get_error=lambda: "Failure # 1\nray.exceptions.ActorDiedError: The actor died.\n\tclass_name"
    )
    assert ray_process._last_error(trial) == "ray.exceptions.ActorDiedError: The actor died."
    assert ray_process._last_error(SimpleNamespace(get_error=lambda: None)) == ""


def test_the_kernels_kills_are_counted_in_the_own_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.events").write_text("oom 4\noom_kill 3\noom_group_kill 0\n")
    monkeypatch.setattr(memory_kills, "control_groups", lambda _: iter([tmp_path]))
    assert count_memory_kills() == 3


def test_without_a_group_those_of_the_machine_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 2\n")
    monkeypatch.setattr(memory_kills, "control_groups", lambda _: iter([tmp_path / "absent"]))
    monkeypatch.setattr(memory_kills, "VMSTAT", tmp_path / "vmstat")
    assert count_memory_kills() == 2
    monkeypatch.setattr(memory_kills, "VMSTAT", tmp_path / "none")
    assert count_memory_kills() == 0


@pytest.mark.parametrize(
    ("at_once", "draws", "pending"),
    [(None, [], "200"), (4, [], None), (None, ["full.lr"], None), (4, ["full.lr"], None)],
)
def test_many_trials_wait_for_a_place_on_a_growing_cluster(
    at_once: int | None, draws: list[str], pending: str | None
) -> None:
    job = {"at_once": at_once, "specs": [{"draws": []}, {"draws": draws}]}
    assert ray_process.pending_environment(job).get("TUNE_MAX_PENDING_TRIALS_PG") == pending


ORPHAN = """
import contextlib, subprocess
from pathlib import Path
from muralab.tune import ray_process

@contextlib.contextmanager
def connection(setup):
    child = subprocess.Popen(["sleep", "600"])
    Path(setup["ray_folder"], "child").write_text(str(child.pid))
    if setup["is_starting"]:
        child.wait()
        raise RuntimeError("Ray was killed while it started")
    yield

ray_process._connection = connection
ray_process.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_starting", [False, True], ids=["started", "starting"])
@pytest.mark.parametrize("last", ["", '{"specs": [{"name"'], ids=["before the job", "in the middle of the job"])
def test_nothing_outlives_a_command_that_dies(tmp_path: Path, last: str, is_starting: bool) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        stdin=subprocess.PIPE,
        env={**environment(), "MURALAB_EVENTS_FD": str(write)},
        pass_fds=(write,),
        text=True,
    )
    os.close(write)
    assert process.stdin is not None
    setup = {"cluster": None, "ray_folder": str(folder), "leftovers": [str(folder)], "is_starting": is_starting}
    process.stdin.write(json.dumps(setup) + "\n")
    process.stdin.flush()
    deadline_s = time.monotonic() + 120
    while not (child := folder / "child").exists() or not child.read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    started = psutil.Process(int(child.read_text()))
    process.stdin.write(last)
    process.stdin.close()
    assert process.wait(60) == 1
    os.close(read)
    assert not is_alive(started)
    assert not folder.exists()
