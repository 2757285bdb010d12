"""The trials of a search, run by Ray Tune in a process of its own, which is started again when it or its Ray dies.

All recipes share one Tune run: a worker that has loaded torch runs one trial after the other. The trials are planned
before the search starts, if not always their values (`search=tpe`). To go on after a death is to run those that did not
end, from their checkpoints: a trial that is run again reports its earlier epochs first, which the listener ignores.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from muralab.config.resources import Resources
from muralab.config.search import CPU_TRIAL_BYTES
from muralab.ending import raise_pending_interrupt
from muralab.errors import ClusterError, DiskError, SearchError, StorageUnavailableError, numbered
from muralab.search_space import Value
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.adaptive import Observation, observe
from muralab.tune.ray_handle import RayProcess
from muralab.tune.remote import Remote
from muralab.tune.scheduler import Past
from muralab.tune.watchdog import Watchdog

RETRIES = 1
"""How often a trial whose process died is restarted, from its checkpoint."""
RESTARTS = 3
"""How often Ray is started again without a single epoch in between."""
LISTEN_S = 0.25
SILENT_S = 40.0
"""Tune's loop shows a sign of life twice a second; after this long without one, it hangs."""
STARTING_S = 180.0
"""The same before the first sign: Ray has to be imported and started."""
RECONNECTED = "Ray is connected again"
DIED = "Its process died twice. If memory ran out, give a smaller max_concurrent, batch_size or image_size."
OUT_OF_MEMORY = (
    "Its process was killed twice because memory ran out, with no other trial beside it. Give a smaller batch_size or "
    "image_size, or use a machine with more memory."
)


class StartRay(Protocol):
    """Starts the process that runs Ray."""

    def __call__(self, *, cpus: int, gpus: int, cluster: Mapping[str, Any] | None = None) -> RayProcess:
        """See `RayProcess`."""


class Listener(Protocol):
    """Hears of the trials, in the main thread, while they run."""

    def trial_chosen(self, name: str, values: Mapping[str, Value]) -> None:
        """The values of a trial that is about to start were chosen from what earlier ones reached."""

    def trial_started(self, name: str) -> None:
        """A trial starts in its process."""

    def trial_placed(self, name: str, node: str) -> None:
        """A trial's process has started on a node of a cluster."""

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        """An epoch ended; `epoch` holds global_epoch, phase, ends_phase, metrics."""

    def trial_ended(self, name: str, how: str, reason: str, *, diverged: bool = False) -> None:
        """`finished`, `pruned`, `stopped` (out of time) or `failed`, with the reason of a failure."""

    def adapted(self, note: str, max_concurrent: int | None = None) -> None:
        """What died and was started again, or that fewer trials run at once from now on."""

    def tick(self) -> None:
        """Called a few times a second."""

    def interrupted(self) -> None:
        """Ctrl-C, SIGTERM or a lost terminal: called when no trial runs any more."""


def run_trials(
    specs: Sequence[TrialSpec],
    *,
    resources: Resources,
    listener: Listener,
    folder: Path,
    time_budget_s: float | None = None,
    past: Mapping[str, Past] | None = None,
    observed: Sequence[Observation] = (),
    prune: bool = True,
    usual_epoch_s: Mapping[str, float] | None = None,
    remote: Remote | None = None,
    start_ray: StartRay = RayProcess,
) -> None:
    """Run trials side by side, in their order, pruning within each recipe; the listener hears of everything.

    Args:
        specs: the trials.
        resources: of the machine and of a trial.
        listener: called in this process; an exception from it ends the search.
        folder: for Ray's own files and its log.
        time_budget_s: after which running trials are stopped and no other starts.
        past: trials that ended before an interruption: new ones are compared with them too.
        observed: what trials that ended before have reached, of this and of earlier sweeps.
        prune: whether poor trials are stopped early.
        usual_epoch_s: trial -> estimated seconds of its longest epoch, for the watchdog.
        remote: where and how they run away from the search's own folders; None: on this machine, in these folders.
        start_ray: `RayProcess`, or something that has started one early.

    Raises:
        ClusterError: no node that can train is left; the trials can be resumed.
        DiskError: a disk is full or read-only; likewise.
        StorageUnavailableError: the storage did not answer a trial for long; likewise.
        SearchError: Ray died again and again.
    """
    search = _Search(
        specs=specs,
        resources=resources,
        listener=listener,
        folder=folder,
        deadline_s=None if time_budget_s is None else time.monotonic() + time_budget_s,
        past=dict(past or {}),
        observed=list(observed),
        prune=prune,
        watchdog=Watchdog(specs, usual_epoch_s or {}),
        usual_epoch_s=dict(usual_epoch_s or {}),
        remote=remote,
        start_ray=start_ray,
    )
    try:
        search.run()
    except KeyboardInterrupt:
        listener.interrupted()
        raise


@dataclass(kw_only=True)
class _Search:
    """Trials that have not ended, and how the processes that ran them have died."""

    specs: Sequence[TrialSpec]
    resources: Resources
    listener: Listener
    folder: Path
    deadline_s: float | None
    past: dict[str, Past]
    observed: list[Observation]
    prune: bool
    watchdog: Watchdog
    usual_epoch_s: dict[str, float] = field(default_factory=dict)
    remote: Remote | None = None
    start_ray: StartRay = RayProcess
    ended: set[str] = field(default_factory=set)
    running: list[str] = field(default_factory=list)
    objectives: dict[str, list[float]] = field(default_factory=dict)
    """Trial -> the objective of each epoch of its full phase."""
    reached: dict[str, float] = field(default_factory=dict)
    """Trial -> its score so far."""
    killed_by_memory: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    """Of Ray, since the last epoch."""
    is_relieved: bool = False
    """Whether memory ran out, so that fewer trials run at once."""
    orphans: set[str] = field(default_factory=set)
    """Trials that were lost with their node before their process had shown a sign of life."""
    nodes: dict[str, str] = field(default_factory=dict)
    """Trial -> the node of a cluster that it runs on."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Id of a node of a cluster that cannot train -> its name, and why."""

    def run(self) -> None:
        """Start Ray, again and again where it dies, until every trial has ended or time is up."""
        while waiting := [spec for spec in self.specs if spec.name not in self.ended]:
            if self._time_left() == 0:
                return
            self.running.clear()
            self.orphans.clear()
            resources = self.resources
            with self.start_ray(cpus=resources.cpus, gpus=resources.gpus, cluster=self._cluster) as ray:
                ray.run(self._job(waiting), self.folder / "ray.log")
                stopped_by = self._listen(ray)
                if stopped_by is not None:
                    ray.end()
            if stopped_by is None:
                return
            self._recover(stopped_by)

    def _time_left(self) -> float | None:
        return None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())

    def _job(self, waiting: Sequence[TrialSpec]) -> dict[str, Any]:
        time_left_s = self._time_left()
        return {
            "specs": [self._spec_as_sent(spec) for spec in waiting],
            "shared": self._shared(),
            "unfit": sorted(self.unfit),
            "full_epochs": {spec.recipe: recipes_of(spec)[1].full.epochs for spec in waiting},
            "usual_epoch_s": self.usual_epoch_s,
            "resources": asdict(self.resources),
            "at_once": None if self._grows else self.resources.max_concurrent,
            "trial_bytes": 0 if self._cluster is None or self.resources.gpus_per_trial else CPU_TRIAL_BYTES,
            "folder": str(self.folder),
            "time_budget_s": None if time_left_s is None else max(0.1, time_left_s),
            "past": self.past,
            "observed": [asdict(one) for one in self.observed],
            "prune": self.prune,
            "retries": RETRIES,
        }

    def _shared(self) -> dict[str, Any]:
        return {} if self.remote is None else self.remote.shared(needs_gpu=self.resources.gpus_per_trial > 0)

    @property
    def _cluster(self) -> dict[str, Any] | None:
        """The existing cluster that the trials run on; None: a Ray of our own."""
        return None if self.remote is None else self.remote.cluster

    @property
    def _grows(self) -> bool:
        return self.remote is not None and self.remote.grows and not self.is_relieved

    def _spec_as_sent(self, spec: TrialSpec) -> dict[str, Any]:
        return spec.to_dict() if self.remote is None else {**self.remote.specs[spec.name], "drawn": spec.drawn}

    def _listen(self, ray: RayProcess) -> _Stop | None:
        """Handle events until the trials have ended (None), or until something needs another start."""
        limit_s, heard_s = STARTING_S, time.monotonic()
        while True:
            for event in ray.events(LISTEN_S):
                heard_s = time.monotonic()
                if event["event"] == "tick":
                    limit_s = SILENT_S
                elif event["event"] == "done":
                    return _Stop("A node of the cluster was lost or unfit", RECONNECTED) if self.orphans else None
                stop = self._handle(**event)
                heard_s = time.monotonic()  # the files of a trial that has ended may have taken long
                if stop is not None:
                    return stop
                if self._cluster is None and len(self.ended) == len(self.specs):
                    return None  # Tune would take another second or two to take down what is killed anyway
            raise_pending_interrupt()
            self.listener.tick()
            self._end_hanging()
            if ray.has_ended:
                return _Stop("Ray's process ended")
            if time.monotonic() - heard_s > limit_s:
                return _Stop(f"Ray did not answer for {limit_s:.0f} s")

    def _handle(self, event: str, **fields: Any) -> _Stop | None:
        handlers: dict[str, Callable[..., _Stop | None]] = {
            "chosen": self._chosen,
            "started": self._started,
            "placed": self._placed,
            "epoch": self._epoch,
            "ended": self._ended,
            "died": self._died,
            "unfit": self._unfit,
            "ray_died": lambda process: _Stop(f"Ray's process {process} died"),
            "failed": self._failed,
        }
        return handlers[event](**fields) if event in handlers else None

    def _chosen(self, name: str, values: Mapping[str, Value]) -> None:
        self.specs = [replace(spec, drawn=values) if spec.name == name else spec for spec in self.specs]
        self.listener.trial_chosen(name, values)

    def _started(self, name: str) -> None:
        self.running.append(name)
        self.watchdog.started(name)
        self.listener.trial_started(name)

    def _placed(self, name: str, node: str) -> None:
        if self._cluster is not None:
            self.nodes[name] = node
            self.listener.trial_placed(name, node)

    def _epoch(self, name: str, result: Mapping[str, Any]) -> None:
        objectives = self.objectives.setdefault(name, [])
        if result["full_epoch"] == len(objectives) + 1:
            objectives.append(result["objective"])
        self.reached[name] = result["reached"]
        self.restarts = 0
        self.watchdog.epoch(name, result["metrics"]["epoch_seconds"])
        self.listener.trial_epoch(name, result)

    def _ended(
        self, name: str, how: str, reason: str, disk: str, diverged: bool, lost_node: str = "", outage: bool = False
    ) -> None:
        self._stopped(name)
        if lost_node:
            self.orphans.add(name)
            return
        where = f"{self.nodes[name]}: " if name in self.nodes else ""
        if outage:  # the other trials would wait as long and fail as well
            raise StorageUnavailableError(f"{where}{reason}")
        if disk:
            raise DiskError(f"{where}{disk} The trial {name} could not write its files.")
        if how == "died":
            how, reason = "failed", self.watchdog.reason(name) or f"{reason}\n{DIED}".strip()
        self.ended.add(name)
        spec = next(spec for spec in self.specs if spec.name == name)
        self.past[name] = (spec.recipe, self.objectives.get(name, []))
        if diverged or (how != "failed" and name in self.reached):
            self.observed.append(observe(spec, math.nan if diverged else self.reached[name]))
        self.listener.trial_ended(name, how, reason, diverged=diverged)

    def _died(self, name: str, memory: bool, reason: str, lost_node: str = "") -> _Stop | None:
        """A trial's process died; Tune runs it again from its checkpoint, unless that needs fewer trials at once."""
        if lost_node:
            self._stopped(name)
            self.listener.adapted(f"The node {lost_node} was lost: {name} goes on elsewhere, from its last checkpoint.")
            return None
        if memory and self.resources.max_concurrent > 1:
            return _Stop("memory ran out", memory=True)
        self._stopped(name)
        why = self.watchdog.reason(name) or reason
        self.listener.adapted(f"The process of {name} died and was started again from its checkpoint. {why}".strip())
        return None

    def _unfit(self, name: str, node_id: str, node: str, reason: str, again: bool, any_left: bool) -> None:
        """A trial's node cannot train: Tune runs the trial `again` on another one, or the next start does."""
        self._stopped(name)
        if not again:
            self.orphans.add(name)
        is_new = node_id not in self.unfit
        self.unfit.setdefault(node_id, f"{node}: {reason.rstrip('.')}.")
        if not any_left:
            raise ClusterError(
                numbered("No node of the cluster can train. The trials can be resumed.", list(self.unfit.values()))
            )
        if is_new:
            self.listener.adapted(
                f"{self.unfit[node_id]} No new process starts on this node, and its trials go on elsewhere. Once "
                "that is fixed, start the node again."
            )

    def _stopped(self, name: str) -> None:
        self.watchdog.stopped(name)
        if name in self.running:
            self.running.remove(name)

    def _failed(self, text: str, memory: bool, disk: str) -> _Stop:
        if disk:
            raise DiskError(f"{disk} Ray could not write its files.")
        return _Stop("memory ran out" if memory else f"Ray failed: {text.strip().splitlines()[-1]}", memory=memory)

    def _end_hanging(self) -> None:
        for process_id in self.watchdog.hanging():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)

    def _recover(self, stop: _Stop) -> None:
        """Prepare the next start: fewer trials at once where memory ran out, and an end where nothing helps."""
        for name in list(self.running):
            self.watchdog.stopped(name)
        if stop.memory:
            self._relieve()
            return
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise SearchError(
                f"{stop.reason}, {self.restarts} times without an epoch in between. Its log: "
                f"{self.folder / 'ray.log'}. Nothing is lost: the trials can be resumed from their checkpoints."
            )
        self.listener.adapted(f"{stop.reason}. {stop.remedy}, and the trials go on from their checkpoints.")

    def _relieve(self) -> None:
        """Memory ran out: fewer trials at once; where only one is running, it fails at the second time."""
        self.is_relieved = True
        at_once = min(self.resources.max_concurrent, max(1, len(self.running)))
        if self.resources.max_concurrent > 1:
            fewer = max(1, at_once - max(1, at_once // 4))
            self.resources = replace(self.resources, max_concurrent=fewer)
            self.listener.adapted(
                f"A trial's process was killed because memory ran out: from now on {fewer} "
                f"{'trial runs' if fewer == 1 else 'trials run'} at a time, from the last checkpoints.",
                max_concurrent=fewer,
            )
            return
        for name in self.running:
            self.killed_by_memory[name] = self.killed_by_memory.get(name, 0) + 1
            if self.killed_by_memory[name] > RETRIES:
                self._ended(name, how="failed", reason=OUT_OF_MEMORY, disk="", diverged=False)


@dataclass(frozen=True)
class _Stop:
    """Why Ray has to be started again."""

    reason: str
    remedy: str = "It is started again"
    memory: bool = False
