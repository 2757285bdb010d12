"""The program that runs Ray Tune in a process of its own, on a Ray of its own or on an existing cluster.

`executor` starts it and sends two lines of JSON: what Ray is started with and, once that is known, the job. It reads
one line of JSON per event. Whatever happens to Ray (a raylet or its object store killed, an error that Tune raises out
of `fit`, a native abort, handlers that Ray installs for signals) happens to this process, and the command that started
it goes on. It never outlives that command: when its standard input ends, it ends Ray and itself.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

import psutil

from muralab.disk import disk_problem
from muralab.errors import DivergedError, MuraLabError, StorageUnavailableError, UnfitNodeError
from muralab.tune.memory_kills import count_memory_kills, is_out_of_memory
from muralab.tune.ray_cluster import existing_ray, node_names, own_ray
from muralab.tune.ray_handle import is_alive, kill_all
from muralab.tune.scheduler import build_scheduler
from muralab.tune.unfit_nodes import UnfitNodes, place_request

EVENTS_FD = "MURALAB_EVENTS_FD"
"""Environment variable: the file descriptor that events are written to."""
TICK_S = 0.5
WATCH_S = 0.5
KILL_S = 5.0
"""How long to wait for killed processes: one that the system holds ends when it lets go."""
NODE_DEATH_S = 30.0
"""Ray misses five health checks, three seconds apart, before it calls a node dead."""
MOST_PENDING = 200
"""Trials of a growing cluster that may wait for a place at once."""
RAY_PROCESSES = ("raylet", "gcs_server")
"""Without these nothing goes on; the object store is part of the raylet."""


class Events:
    """Writes events as lines of JSON; any thread may send one."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()
        self._ticked_s = 0.0

    def send(self, event: str, **fields: Any) -> None:
        """Write an event."""
        with self._lock:
            self._file.write(json.dumps({"event": event, **fields}, default=float) + "\n")
            self._file.flush()

    def tick(self) -> None:
        """Show now and then that the loop of Tune goes on."""
        if time.monotonic() - self._ticked_s > TICK_S:
            self._ticked_s = time.monotonic()
            self.send("tick")


_stopping = threading.Event()
"""Ray is being shut down, so its processes may end."""
_orphaned = threading.Event()
"""The command has died, and a thread takes everything down."""


def main() -> None:
    """Start Ray, read the job, run it, and report everything that happens."""
    events = Events(int(os.environ.pop(EVENTS_FD)))
    _reports.append(_Report(events))
    setup = json.loads(sys.stdin.readline())
    jobs: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_listen_to_driver, args=(setup["leftovers"], jobs), daemon=True).start()
    try:
        _report().node_death_s = 0.0 if setup["cluster"] is None else NODE_DEATH_S
        with _connection(setup):
            sys.modules["mlflow"] = None  # type: ignore[assignment]  # Tune would load it to count its own callbacks
            import ray.tune  # noqa: F401 -- a second that the job would wait for

            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failure's traceback is kept in its run
            threading.Thread(target=_end_with_ray, args=(events,), daemon=True).start()
            job = jobs.get()
            _redirect_output(job["log"])
            _report().memory_kills = count_memory_kills()  # what died before was no trial
            _run(job)
            _stopping.set()
            events.send("done")
    except BaseException as error:
        if _orphaned.is_set():  # Ray was killed while it started
            threading.Event().wait()
        disk = disk_problem(error) or ""
        events.send("failed", text=traceback.format_exc(), memory=is_out_of_memory(error), disk=disk)
        _end_all()


def _connection(setup: Mapping[str, Any]) -> AbstractContextManager[None]:
    if setup["cluster"] is None:
        return own_ray(setup["cpus"], setup["gpus"], setup["ray_folder"])
    return existing_ray(setup["cluster"]["address"], setup["cluster"]["modules"])


def _listen_to_driver(leftovers: list[str], jobs: SimpleQueue[dict[str, Any]]) -> None:
    """Receive the job; end everything, and leave no temporary file, when the command that sends it has died."""
    line = sys.stdin.readline()
    if line.endswith("\n"):  # else the command died while it wrote it
        jobs.put(json.loads(line))
        sys.stdin.read()
    _orphaned.set()
    _kill_children()
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _redirect_output(log: str) -> None:
    """Append what this process prints from now on to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _end_with_ray(events: Events) -> None:
    """End everything when a process of Ray has died: Tune would wait for it forever."""
    watched = {child.name(): child for child in psutil.Process().children() if child.name() in RAY_PROCESSES}
    while True:
        time.sleep(WATCH_S)
        dead = [name for name, child in watched.items() if not is_alive(child)]
        if dead and not _stopping.is_set():
            events.send("ray_died", process=dead[0])
            _end_all()


def _end_all() -> NoReturn:
    _kill_children()
    os._exit(1)


def _kill_children() -> None:
    """Kill what this process has started, and what those start meanwhile."""
    deadline_s = time.monotonic() + KILL_S
    while children := [one for one in psutil.Process().children(recursive=True) if is_alive(one)]:
        kill_all(children)
        if time.monotonic() > deadline_s:
            return
        time.sleep(0.02)


def _run(job: Mapping[str, Any]) -> None:
    from ray import tune

    os.environ.update(pending_environment(job))
    resources = job["resources"]
    past = {name: (recipe, objectives) for name, (recipe, objectives) in job["past"].items()}
    needed = {"CPU": resources["cpus_per_trial"], "GPU": resources["gpus_per_trial"], "memory": job["trial_bytes"]}
    unfit = _report().unfit
    unfit.needed = {key: value for key, value in needed.items() if value}
    unfit.ids.update(job["unfit"])
    tuner = tune.Tuner(
        tune.with_resources(_work, place_request(unfit.needed, unfit=lambda: _report().unfit.ids)),
        param_space=job["shared"],
        tune_config=tune.TuneConfig(
            search_alg=_build_searcher(job),
            num_samples=len(job["specs"]),
            scheduler=build_scheduler(job["full_epochs"], past) if job["prune"] else None,
            max_concurrent_trials=job["at_once"],
            reuse_actors=True,
            time_budget_s=job["time_budget_s"],
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}",
            storage_path=job["folder"],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=job["retries"]),
            callbacks=[_build_callback()],
        ),
    )
    tuner.fit()


def pending_environment(job: Mapping[str, Any]) -> dict[str, str]:
    """Variables by which many trials wait for places at once on a cluster that grows.

    With a searcher Tune would ask for one place after the other. A trial that learns from others is not chosen early.
    """
    is_many = job["at_once"] is None and not _learns(job)
    return {"TUNE_MAX_PENDING_TRIALS_PG": str(MOST_PENDING)} if is_many else {}


def _build_searcher(job: Mapping[str, Any]) -> Any:
    from muralab.tune.searcher import build_searcher

    return build_searcher(job["specs"], job["usual_epoch_s"], _build_learner(job) if _learns(job) else None)


def _learns(job: Mapping[str, Any]) -> bool:
    return any(spec["draws"] for spec in job["specs"])


def _build_learner(job: Mapping[str, Any]) -> Any:
    from muralab.tune.adaptive import Observation
    from muralab.tune.learner import Learner

    observed = [Observation(**one) for one in job["observed"]]
    return Learner(observed, on_chosen=lambda name, values: _report().events.send("chosen", name=name, values=values))


def _trial_name(trial: Any) -> str:
    return str(trial.config["spec"]["name"])


def _work(config: dict[str, Any]) -> None:
    """One trial in a worker process; Tune ends it by an exception inside `report`, so everything is closed in order."""
    from ray import get_runtime_context, tune

    from muralab.trial import recipes_of
    from muralab.tune.node import open_trial, why_unfit
    from muralab.tune.trial_score import score_trial

    tune.report({"node": get_runtime_context().get_node_id()})
    history: list[dict[str, float]] = []
    try:
        with open_trial(config) as (spec, epochs):
            recipe = recipes_of(spec)[1]
            last_phase = [name for name, phase in recipe.phases.items() if phase.epochs][-1]
            for result in epochs:
                history.append(result.metrics())
                score = score_trial(history, spec.objective, recipe.kept_phase)
                assert score is not None  # an epoch has ended
                tune.report(
                    {
                        "global_epoch": result.global_epoch,
                        "full_epoch": result.epoch if result.phase == "full" else 0,
                        "objective": result.validation[spec.objective],
                        "reached": score.objective,
                        "phase": result.phase,
                        "ends_phase": result.ends_phase,
                        "complete": result.ends_phase and result.phase == last_phase,
                        # As text: Tune would keep the last ten values of each number, 0.1 MiB per trial.
                        "metrics": json.dumps(history[-1], default=float),
                    }
                )
    except Exception as error:
        if unfit := why_unfit(error, config):
            tune.report({"unfit": unfit})
            raise UnfitNodeError(unfit) from error  # ends this process, and Tune runs the trial again
        # It would fail again: only a process that died is worth a restart.
        reason = str(error) if isinstance(error, MuraLabError) else traceback.format_exc()
        # On a cluster the trial's folder is a name that only its node resolves, below its temporary files.
        place = tempfile.gettempdir() if config.get("storage") else config["spec"]["folder"]
        disk = disk_problem(error, Path(place)) or ""
        kinds = {"diverged": isinstance(error, DivergedError), "outage": isinstance(error, StorageUnavailableError)}
        tune.report({"failed": reason, "disk": disk, **kinds})


REPORTED = ("global_epoch", "full_epoch", "objective", "reached", "phase", "ends_phase", "complete", "metrics")


def _build_callback() -> Any:
    from ray.tune import Callback

    class Forwarder(Callback):  # type: ignore[misc]
        """Sends what happens to trials; it has no state worth saving, since MLflow holds what happened."""

        def __getstate__(self) -> dict[str, Any]:
            return {}

        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            _report().events.tick()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            _report().events.send("started", name=_trial_name(trial))

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **_: Any) -> None:
            _report().result(_trial_name(trial), result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            _report().complete(_trial_name(trial))

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            if _report().died(_trial_name(trial), _last_error(trial)):
                trial.run_metadata.num_failures -= 1  # a lost or unfit node is not the trial's failure

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            _report().lost(_trial_name(trial), _last_error(trial))

    return Forwarder()


class _Report:
    """Turns what Tune says into events."""

    def __init__(self, events: Events) -> None:
        self.events, self.memory_kills = events, count_memory_kills()
        self.last: dict[str, Mapping[str, Any]] = {}
        self.node_death_s = 0.0
        """How long a cluster may take to notice that a node is gone; 0 on a Ray of our own."""
        self.nodes: dict[str, str] = {}
        """Trial -> id of its node."""
        self.names: dict[str, str] = {}
        """Id of every node that has run a trial -> its name."""
        self.unfit = UnfitNodes()

    def result(self, name: str, result: Mapping[str, Any]) -> None:
        """A trial's process has started on a node, an epoch ended, or the trial failed."""
        if "node" in result:
            self.nodes[name] = result["node"]
            self.names = node_names() | self.names  # with nodes that have joined; no name changes in the middle
            self.events.send("placed", name=name, node=self.names.get(result["node"], ""))
            return
        if "unfit" in result:
            self.unfit.found(name, result["unfit"])
            return
        self.last[name] = result
        if "metrics" in result:
            values = {key: result[key] for key in REPORTED} | {"metrics": json.loads(result["metrics"])}
            self.events.send("epoch", name=name, result=values)

    def complete(self, name: str) -> None:
        """A trial ended in order."""
        self.events.send("ended", name=name, **_ending(self.last.get(name, {})))

    def died(self, name: str, reason: str) -> bool:
        """A trial's process ended, and is started again; returns whether that was due to its node."""
        if self._left_unfit(name, again=True):
            return True
        kills = count_memory_kills()
        memory, self.memory_kills = kills > self.memory_kills, kills
        lost = self._lost_node(name)
        self.events.send("died", name=name, memory=memory and not lost, reason=reason, lost_node=lost)
        return bool(lost)

    def lost(self, name: str, reason: str) -> None:
        """A trial's process died too often, or before its first sign of life."""
        if self._left_unfit(name, again=False):
            return
        lost = self._lost_node(name)
        self.events.send("ended", name=name, how="died", reason=reason, disk="", diverged=False, lost_node=lost)

    def _left_unfit(self, name: str, *, again: bool) -> bool:
        """Whether a trial's process ended because its node cannot train."""
        node = self.nodes.get(name, "")
        found = self.unfit.left(name, node)
        if found:
            self.events.send("unfit", name=name, node_id=node, node=self.names.get(node, ""), again=again, **found)
        return bool(found)

    def _lost_node(self, name: str) -> str:
        """The name of the node that a trial ran on, if that is gone; else empty."""
        node, deadline_s = self.nodes.get(name, ""), time.monotonic() + self.node_death_s
        while node in node_names():  # a process is often missed before its node is
            if time.monotonic() >= deadline_s:
                return ""
            self.events.tick()
            time.sleep(TICK_S)
        return self.names.get(node, "")


_reports: list[_Report] = []
"""Tune pickles its callbacks, which would copy open files: they look it up here instead."""


def _report() -> _Report:
    return _reports[0]


def _ending(last: Mapping[str, Any]) -> dict[str, Any]:
    """How a trial ended and why, from its last report."""
    how = "failed" if "failed" in last else "finished" if last.get("complete") else "pruned"
    return {
        "how": how,
        "reason": str(last.get("failed", "")),
        "disk": str(last.get("disk", "")),
        "diverged": bool(last.get("diverged", False)),
        "outage": bool(last.get("outage", False)),
        "lost_node": "",
    }


def _last_error(trial: Any) -> str:
    """Why a trial's process died, without the pages that Ray writes about it."""
    error = trial.get_error()
    lines = str(error or "").strip().splitlines()
    return next((line.strip() for line in lines if "Error" in line or "died" in line.lower()), "")[:500]
