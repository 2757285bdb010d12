"""What the executor does when Ray, a trial's process or the memory fails; a small program stands for Ray."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from muralab.config.resources import Resources
from muralab.errors import ClusterError, DiskError, SearchError, StorageUnavailableError
from muralab.trial import TrialSpec
from muralab.tune import executor, ray_handle
from muralab.tune.executor import StartRay, run_trials
from muralab.tune.ray_handle import EarlyRay, RayProcess
from muralab.tune.remote import Remote
from muralab.tune.scheduler import Past

PROGRAM = """
import json, os, sys, time
from pathlib import Path
job = json.loads(sys.stdin.readline()) | json.loads(sys.stdin.readline())
folder = Path(job["folder"])
number = len(list(folder.glob("job-*")))
(folder / f"job-{number}").write_text(json.dumps({**job, "environment": dict(os.environ), "pid": os.getpid()}))
out = os.fdopen(int(os.environ["MURALAB_EVENTS_FD"]), "w")
for event in json.loads((folder / "script").read_text())[number]:
    if event in ("hang", "pause"):
        time.sleep(600 if event == "hang" else 1)
        continue
    print(json.dumps(event), file=out, flush=True)
(folder / f"end-{number}").touch()
"""
DONE = {"event": "done"}


def started(name: str) -> dict[str, Any]:
    return {"event": "started", "name": name}


def epoch(name: str, number: int, objective: float = 0.5) -> dict[str, Any]:
    metrics = {"epoch_seconds": 1.0}
    numbers = {"global_epoch": number, "full_epoch": number, "objective": objective, "reached": objective}
    return {"event": "epoch", "name": name, "result": {**numbers, "phase": "full", "metrics": metrics}}


def ended(name: str, how: str = "finished", reason: str = "", **fields: Any) -> dict[str, Any]:
    return {"event": "ended", "name": name, "how": how, "reason": reason, "disk": "", "diverged": False, **fields}


def failed(text: str = "Traceback\nRayError: x", *, memory: bool = False, disk: str = "") -> dict[str, Any]:
    return {"event": "failed", "text": text, "memory": memory, "disk": disk}


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.chosen: dict[str, Mapping[str, Any]] = {}
        self.epochs: list[tuple[str, int]] = []
        self.ended: dict[str, tuple[str, str]] = {}
        self.notes: list[str] = []
        self.placed: dict[str, str] = {}
        self.at_once: list[int] = []
        self.interruptions = 0
        self.on_tick: Callable[[], None] = lambda: None

    def trial_chosen(self, name: str, values: Mapping[str, Any]) -> None:
        self.chosen[name] = values

    def trial_started(self, name: str) -> None:
        pass

    def trial_placed(self, name: str, node: str) -> None:
        self.placed[name] = node

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        self.epochs.append((name, epoch["global_epoch"]))

    def trial_ended(self, name: str, how: str, reason: str, *, diverged: bool = False) -> None:
        self.ended[name] = (how, reason)

    def adapted(self, note: str, max_concurrent: int | None = None) -> None:
        self.notes.append(note)
        self.at_once += [max_concurrent] if max_concurrent else []

    def tick(self) -> None:
        self.on_tick()

    def interrupted(self) -> None:
        self.interruptions += 1


class Stand:
    """Runs the trials a and b by a script: for each start of Ray, its events."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.heard = folder, Heard()

    def run(
        self,
        script: Sequence[Sequence[Any]],
        *,
        at_once: int = 1,
        past: Mapping[str, Past] | None = None,
        remote: Remote | None = None,
        start_ray: StartRay = RayProcess,
    ) -> Heard:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "script").write_text(json.dumps(script))
        specs = [
            TrialSpec(name=name, recipe="cnn", table="", cache_folder="", folder=str(self.folder / name))
            for name in "ab"
        ]
        resources = Resources(cpus=4, gpus=0, cpus_per_trial=1, gpus_per_trial=0, max_concurrent=at_once)
        run_trials(
            specs, resources=resources, listener=self.heard, folder=self.folder, past=past, remote=remote,
            start_ray=start_ray,
        )  # fmt: skip
        return self.heard

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("job-*"))]

    def names(self, job: int) -> list[str]:
        return [spec["name"] for spec in self.jobs[job]["specs"]]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setattr(ray_handle, "PROGRAM", PROGRAM)
    return Stand(tmp_path / "ray")


def test_an_undisturbed_search_starts_ray_once(stand: Stand) -> None:
    heard = stand.run([[started("a"), epoch("a", 1), ended("a"), started("b"), ended("b", "pruned"), DONE]])
    assert heard.ended == {"a": ("finished", ""), "b": ("pruned", "")}
    assert (len(stand.jobs), heard.notes) == (1, [])


@pytest.mark.parametrize("death", [[], [{"event": "ray_died", "process": "raylet"}], [failed()]])
def test_a_dead_ray_is_started_again_with_the_trials_that_are_left(stand: Stand, death: list[Any]) -> None:
    first = [started("a"), epoch("a", 1, 0.7), ended("a"), started("b"), epoch("b", 1), *death]
    heard = stand.run(
        [first, [started("b"), epoch("b", 1), epoch("b", 2), ended("b"), DONE]], past={"c": ("cnn", [0.1])}
    )
    assert heard.ended == {"a": ("finished", ""), "b": ("finished", "")}
    assert stand.names(1) == ["b"]
    assert stand.jobs[1]["past"] == {"a": ["cnn", [0.7]], "c": ["cnn", [0.1]]}
    assert "the trials go on from their checkpoints" in heard.notes[0]


def test_chosen_values_survive_a_dead_ray_and_later_choices_know_what_was_reached(stand: Stand) -> None:
    chosen = {"event": "chosen", "name": "b", "values": {"full.lr": 3e-4}}
    first = [started("a"), epoch("a", 1, 0.7), ended("a"), chosen, started("b"), epoch("b", 1)]
    heard = stand.run([first, [started("b"), ended("b", "failed", diverged=True), DONE]])
    assert heard.chosen == {"b": {"full.lr": 3e-4}}
    assert stand.jobs[1]["specs"][0]["drawn"] == {"full.lr": 3e-4}
    assert [(one["trial"], one["objective"]) for one in stand.jobs[1]["observed"]] == [("a", 0.7)]


def test_a_ray_that_does_not_answer_is_ended(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SILENT_S", 0.3)
    heard = stand.run([[{"event": "tick"}, "hang"], [ended("a"), ended("b"), DONE]])
    assert "Ray did not answer for 0 s" in heard.notes[0]
    assert set(heard.ended) == {"a", "b"}


def test_a_ray_that_dies_again_and_again_ends_the_search(stand: Stand) -> None:
    with pytest.raises(SearchError, match=r"Ray failed: RayError: x, 4 times without an epoch.*can be resumed"):
        stand.run([[failed()]] * 4)


def test_deaths_with_progress_in_between_go_on(stand: Stand) -> None:
    script = [[started("a"), *(epoch("a", n) for n in range(1, k + 1)), failed()] for k in range(1, 7)]
    heard = stand.run([*script, [ended("a"), ended("b"), DONE]])
    assert len(heard.notes) == 6
    assert set(heard.ended) == {"a", "b"}


@pytest.mark.parametrize("death", [failed(memory=True), {"event": "died", "name": "a", "memory": True, "reason": ""}])
def test_where_memory_runs_out_fewer_trials_run_at_once(stand: Stand, death: dict[str, Any]) -> None:
    heard = stand.run([[started("a"), started("b"), death], [ended("a"), ended("b"), DONE]], at_once=3)
    assert heard.at_once == [1]
    assert [job["resources"]["max_concurrent"] for job in stand.jobs] == [3, 1]
    assert "because memory ran out: from now on 1 trial runs at a time" in heard.notes[0]


def test_a_trial_that_alone_exceeds_memory_twice_fails_and_the_search_goes_on(stand: Stand) -> None:
    killed = [started("a"), failed(memory=True)]
    heard = stand.run([killed, killed, [started("b"), ended("b"), DONE]])
    assert heard.ended["a"][0] == "failed"
    assert "memory ran out, with no other trial beside it" in heard.ended["a"][1]
    assert heard.ended["b"] == ("finished", "")
    assert stand.names(2) == ["b"]


def test_a_process_that_died_is_reported_and_its_trial_goes_on(stand: Stand) -> None:
    died = {"event": "died", "name": "a", "memory": False, "reason": "ActorDiedError: killed"}
    heard = stand.run([[started("a"), died, started("a"), ended("a"), ended("b"), DONE]], at_once=2)
    assert heard.notes == ["The process of a died and was started again from its checkpoint. ActorDiedError: killed"]
    assert len(stand.jobs) == 1


def test_a_full_disk_ends_the_search_instead_of_one_trial_after_the_other(stand: Stand) -> None:
    full = ended("a", "failed", "SafetensorError", disk="The disk is full at /c.")
    with pytest.raises(DiskError, match=r"The disk is full at /c\. The trial a could not write its files"):
        stand.run([[started("a"), full, started("b")]])
    assert stand.heard.ended == {}


def test_an_interrupt_ends_everything_before_the_runs_are_closed(stand: Stand) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    stand.heard.on_tick = interrupt
    before = psutil.Process().children()  # servers of other tests
    with pytest.raises(KeyboardInterrupt):
        stand.run([[started("a"), "hang"]])
    assert stand.heard.interruptions == 1
    left = [one for one in psutil.Process().children() if one not in before]
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


SENT = {name: {"name": name, "folder": f"{{sweep}}/trials/{name}"} for name in "ab"}


def remote(**values: Any) -> Remote:
    fields = {"storage": "s3://b", "sweep": "sweeps/r", "specs": SENT, "address": "auto", "modules": ["m"], **values}
    return Remote(**fields)


def test_a_cluster_gets_names_instead_of_paths_and_may_grow(stand: Stand) -> None:
    heard = stand.run(
        [[started("a"), {"event": "placed", "name": "a", "node": "gpu2"}, ended("a"), ended("b"), DONE]],
        remote=remote(grows=True),
    )
    (job,) = stand.jobs
    assert job["specs"] == [{**spec, "drawn": {}} for spec in SENT.values()]
    assert (job["cluster"], job["at_once"]) == ({"address": "auto", "modules": ["m"]}, None)
    assert job["trial_bytes"] > 0
    assert {"storage": "s3://b", "sweep": "sweeps/r"}.items() <= job["shared"].items()
    assert heard.placed == {"a": "gpu2"}


def test_a_ray_of_our_own_is_told_nothing_of_clusters(stand: Stand) -> None:
    heard = stand.run([[{"event": "placed", "name": "a", "node": "me"}, ended("a"), ended("b"), DONE]], at_once=2)
    (job,) = stand.jobs
    assert (job["cluster"], job["at_once"], job["trial_bytes"], job["shared"]) == (None, 2, 0, {})
    assert heard.placed == {}


def test_a_lost_node_is_not_the_trials_failure(stand: Stand) -> None:
    lost = {"event": "died", "name": "a", "memory": False, "reason": "ActorDiedError", "lost_node": "gpu2"}
    heard = stand.run([[started("a"), lost, started("a"), lost, started("a"), ended("a"), ended("b"), DONE]], at_once=2)
    assert heard.ended["a"] == ("finished", "")
    assert heard.notes[0] == "The node gpu2 was lost: a goes on elsewhere, from its last checkpoint."
    assert len(stand.jobs) == 1


def test_a_trial_that_its_node_took_along_at_its_start_is_run_again(stand: Stand) -> None:
    gone = {**ended("a", "died", "ActorDiedError"), "lost_node": "gpu2"}
    heard = stand.run([[started("a"), gone, ended("b"), DONE], [started("a"), ended("a"), DONE]], remote=remote())
    assert heard.ended == {"a": ("finished", ""), "b": ("finished", "")}
    assert stand.names(1) == ["a"]


def unfit(name: str, node: str = "gpu2", **fields: Any) -> dict[str, Any]:
    found = {"node_id": f"id-{node}", "node": node, "reason": "no access.", "again": True, "any_left": True, **fields}
    return {"event": "unfit", "name": name, **found}


def test_an_unfit_node_fails_no_trial_and_is_named_once(stand: Stand) -> None:
    first = [started("a"), unfit("a"), started("b"), unfit("b"), started("a"), ended("a"), failed()]
    heard = stand.run([first, [started("b"), ended("b"), DONE]], remote=remote())
    assert heard.ended == {"a": ("finished", ""), "b": ("finished", "")}
    notes = [note for note in heard.notes if "gpu2" in note]
    assert len(notes) == 1
    assert notes[0].startswith("gpu2: no access. No new process starts on this node, and its trials go on elsewhere.")
    assert [job["unfit"] for job in stand.jobs] == [[], ["id-gpu2"]]


def test_a_trial_that_may_not_be_started_again_on_another_node_waits_for_the_next_ray(stand: Stand) -> None:
    first = [started("a"), unfit("a", again=False), ended("b"), DONE]
    heard = stand.run([first, [started("a"), ended("a"), DONE]], remote=remote())
    assert heard.notes[-1].startswith("A node of the cluster was lost or unfit. Ray is connected again, and the trials")
    assert heard.ended["a"] == ("finished", "")
    assert stand.names(1) == ["a"]


def test_a_cluster_without_a_fit_node_ends_the_search(stand: Stand) -> None:
    script = [started("a"), unfit("a"), started("a"), unfit("a", "gpu3", any_left=False), "hang"]
    with pytest.raises(ClusterError, match=r"(?s)can be resumed\.\n  1\. gpu2: no access\.\n  2\. gpu3: no access\."):
        stand.run([script], remote=remote())
    assert stand.heard.ended == {}
    assert not [note for note in stand.heard.notes if "gpu3" in note]  # nothing goes on elsewhere


def test_an_outage_of_the_storage_ends_the_search_and_excludes_no_node(stand: Stand) -> None:
    placed = {"event": "placed", "name": "a", "node": "gpu2"}
    outage = ended("a", "failed", "storage=/x cannot be used: it does not answer.", outage=True)
    with pytest.raises(StorageUnavailableError, match=r"^gpu2: storage=/x cannot be used: it does not answer\.$"):
        stand.run([[started("a"), placed, outage, "hang"]], remote=remote())
    assert stand.heard.ended == {}


def test_memory_that_ran_out_ends_the_growth(stand: Stand) -> None:
    stand.run([[started("a"), started("b"), failed(memory=True)], [ended("a"), ended("b"), DONE]],
              at_once=4, remote=remote(grows=True))  # fmt: skip
    assert [job["at_once"] for job in stand.jobs] == [None, 1]


def test_no_folder_of_ray_is_left(stand: Stand) -> None:
    stand.run([[started("a"), failed()], [ended("a"), ended("b"), DONE]])
    folders = [job["ray_folder"] for job in stand.jobs]
    assert len(set(folders)) == 2
    assert not any(map(os.path.exists, folders))


def test_the_processes_of_trials_know_nothing_of_the_store(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("PGPASSWORD", "secret")
    stand.run([[ended("a"), ended("b"), DONE]])
    assert not any(key.startswith(("MLFLOW_", "PG")) for key in stand.jobs[0]["environment"])


def test_a_trial_without_a_step_is_ended(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    trial, kill = 2**22 + 1, os.kill  # no process has such a number
    monkeypatch.setattr(os, "kill", lambda *call: killed.append(call) if call[0] == trial else kill(*call))
    monkeypatch.setattr(executor.Watchdog, "hanging", lambda _: [trial] if not killed else [])
    monkeypatch.setattr(executor.Watchdog, "reason", lambda *_: "It made no step for 5 minutes.")
    heard = stand.run([[started("a"), "pause", ended("a", "died", "ActorDiedError"), ended("b"), DONE]])
    assert killed == [(trial, signal.SIGKILL)]
    assert heard.ended["a"] == ("failed", "It made no step for 5 minutes.")


def test_time_that_is_up_starts_nothing(stand: Stand) -> None:
    search = executor._Search(
        specs=[], resources=Resources(cpus=1, gpus=0, cpus_per_trial=1, gpus_per_trial=0, max_concurrent=1),
        listener=Heard(), folder=stand.folder, deadline_s=time.monotonic() - 1, past={}, observed=[], prune=True,
        watchdog=executor.Watchdog([], {}),
    )  # fmt: skip
    assert search._time_left() == 0


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_ray_of_our_own_is_ended_with_the_last_trial_and_a_cluster_left_in_order(
    stand: Stand, on_cluster: bool
) -> None:
    specs = {name: {"name": name, "recipe": "cnn", "draws": []} for name in "ab"}
    remote = Remote(storage="/s", sweep="x", specs=specs, address="10.0.0.1:6379") if on_cluster else None
    heard = stand.run([[started("a"), ended("a"), started("b"), ended("b"), "pause", DONE]], remote=remote)
    assert list(heard.ended) == ["a", "b"]
    assert (stand.folder / "end-0").exists() is on_cluster


@pytest.fixture
def early(stand: Stand) -> Iterator[EarlyRay]:
    with EarlyRay(is_wanted=True) as early:
        assert early._process is not None
        early._process.size = (4, 0)  # as the stand's resources
        yield early


def test_ray_that_was_started_early_runs_the_first_job_alone(stand: Stand, early: EarlyRay) -> None:
    assert early._process is not None
    early_pid = early._process._process.pid
    heard = stand.run([[started("a"), ended("a")], [started("b"), ended("b"), DONE]], start_ray=early)
    assert list(heard.ended) == ["a", "b"]
    assert [job["pid"] == early_pid for job in stand.jobs] == [True, False]


@pytest.mark.parametrize("why", ["another size", "a cluster", "it has died"])
def test_ray_that_was_started_early_and_does_not_fit_is_replaced(early: EarlyRay, why: str) -> None:
    first = early._process
    assert first is not None
    if why == "another size":
        first.size = (1, 0)
    if why == "it has died":
        first._process.kill()
        first._process.wait()
    cluster = {"address": "10.0.0.1:6379", "modules": []} if why == "a cluster" else None
    with early(cpus=4, gpus=0, cluster=cluster) as given:
        assert given is not first
        given.end()
    assert not first.is_alive
    assert not first.folder.exists()


def test_ray_that_was_started_early_for_nothing_is_ended(stand: Stand) -> None:
    with EarlyRay(is_wanted=True) as early:
        first = early._process
    assert first is not None
    assert not first.is_alive
    assert not first.folder.exists()
