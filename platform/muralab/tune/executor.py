"""Ray Tune over a list of trials; with `scheduler` the only module that imports ray.

All recipes share one Tune run: a worker that has loaded torch runs one trial after the other. The trials are drawn
before the search starts; to resume an interrupted one is to run those that did not end, from their checkpoints.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from muralab.config.resources import Resources
from muralab.errors import MuraLabError
from muralab.experiment import run_trial
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.scheduler import Past, build_scheduler

OBJECT_STORE_BYTES = 200 * 2**20
"""Trials exchange names and numbers, never pictures; Ray's default is a third of the machine."""
RETRIES = 1
"""How often a trial whose process died is restarted, from its checkpoint."""
DIED = "Its process died twice. If memory ran out, give a smaller max_concurrent, batch_size or image_size."


class Listener(Protocol):
    """Hears of the trials, in the driver's process, while they run."""

    def trial_started(self, name: str) -> None:
        """A trial starts in its process."""

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        """An epoch ended; `epoch` holds global_epoch, phase, ends_phase, metrics."""

    def trial_ended(self, name: str, how: str, reason: str) -> None:
        """`finished`, `pruned`, `stopped` (out of time) or `failed`, with the reason of a failure."""

    def tick(self) -> None:
        """Called a few times a second."""

    def interrupted(self) -> None:
        """Ctrl-C, SIGTERM or a lost terminal: called before anything is taken down."""


_LISTENERS: dict[str, Listener] = {}
"""Tune pickles its callbacks, which would copy open files and threads: they look it up by a token instead."""


def run_trials(
    specs: Sequence[TrialSpec],
    *,
    resources: Resources,
    listener: Listener,
    folder: Path,
    time_budget_s: float | None = None,
    past: Mapping[str, Past] | None = None,
    prune: bool = True,
) -> None:
    """Run trials side by side, in their order, pruning within each recipe; the listener hears of everything.

    Args:
        specs: the trials.
        resources: of the machine and of a trial.
        listener: called in this process; an exception from it ends the search.
        folder: for Ray's own files.
        time_budget_s: after which running trials are stopped and no other starts.
        past: trials that ended before an interruption: new ones are compared with them too.
        prune: whether poor trials are stopped early.
    """
    from ray import tune

    with _cluster(resources), _registered(listener) as token:
        tuner = tune.Tuner(
            tune.with_resources(_work, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
            param_space={"spec": tune.grid_search([spec.to_dict() for spec in specs])},
            tune_config=tune.TuneConfig(
                scheduler=build_scheduler(specs, past or {}) if prune else None,
                max_concurrent_trials=resources.max_concurrent,
                reuse_actors=True,
                time_budget_s=time_budget_s,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_build_callback(token)],
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            listener.interrupted()
            raise


def _trial_name(trial: Any) -> str:
    return str(trial.config["spec"]["name"])


def _work(config: dict[str, Any]) -> None:
    """One trial in a worker process; Tune ends it by an exception inside `report`, so everything is closed in order."""
    from ray import tune

    spec = TrialSpec(**config["spec"])
    last_phase = [name for name, phase in recipes_of(spec)[1].phases.items() if phase.epochs][-1]
    try:
        with closing(run_trial(spec)) as epochs:
            for result in epochs:
                tune.report(
                    {
                        "global_epoch": result.global_epoch,
                        "full_epoch": result.epoch if result.phase == "full" else 0,
                        "objective": result.validation[spec.objective],
                        "phase": result.phase,
                        "ends_phase": result.ends_phase,
                        "complete": result.ends_phase and result.phase == last_phase,
                        "metrics": result.metrics(),
                    }
                )
    except Exception as error:  # it would fail again: only a process that died is worth a restart
        tune.report({"failed": str(error) if isinstance(error, MuraLabError) else traceback.format_exc()})


def _build_callback(token: str) -> Any:
    from ray.tune import Callback

    class Forwarder(Callback):  # type: ignore[misc]
        """Forwards to the listener; it has no state worth saving, since MLflow holds what happened."""

        def __init__(self) -> None:
            self.token = token
            self.last: dict[str, dict[str, Any]] = {}

        def setup(self, *_: Any, **__: Any) -> None:
            self.listener = _find_listener(self.token)

        def __getstate__(self) -> dict[str, Any]:
            return {"token": self.token, "last": {}}

        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            self.listener.tick()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.listener.trial_started(_trial_name(trial))

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **_: Any) -> None:
            name = _trial_name(trial)
            self.last[name] = result
            if "metrics" in result:
                self.listener.trial_epoch(name, result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.listener.trial_ended(_trial_name(trial), *_ending(self.last.get(_trial_name(trial), {})))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            self.listener.trial_ended(_trial_name(trial), "failed", _reason(trial.get_error()))

    return Forwarder()


def _ending(last: Mapping[str, Any]) -> tuple[str, str]:
    """How a trial ended and why, from its last report."""
    if "failed" in last:
        return "failed", str(last["failed"])
    return "finished" if last.get("complete") else "pruned", ""


def _reason(error: BaseException | str | None) -> str:
    """Why a trial's process did not survive; Tune passes text where it kept the error in a file."""
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error)) if error else ""
    return f"{text.strip()}\n{DIED}".strip()


def _find_listener(token: str) -> Listener:
    return _LISTENERS[token]


@contextmanager
def _registered(listener: Listener) -> Iterator[str]:
    token = uuid.uuid4().hex
    _LISTENERS[token] = listener
    try:
        yield token
    finally:
        del _LISTENERS[token]


@contextmanager
def _cluster(resources: Resources) -> Iterator[None]:
    """A Ray of our own for as long as the search lasts, quiet and without a dashboard."""
    roots = [str(folder) for folder in Path(__file__).resolve().parents[2:4]]
    known = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in roots]
    os.environ.update(
        PYTHONPATH=os.pathsep.join([*roots, *known]),
        RAY_CHDIR_TO_TRIAL_DIR="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_AUTH_TOKEN=os.environ.get("RAY_AUTH_TOKEN", uuid.uuid4().hex),  # else Ray writes one into the home folder
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",  # an interrupt reaches us as KeyboardInterrupt: we close in order
        TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    )
    os.environ.pop("MLFLOW_RUN_ID", None)  # every worker would resume the search's own run
    import ray

    with _sigterm_kept():
        ray.init(
            address="local",
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=OBJECT_STORE_BYTES,
        )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failure's traceback is kept in its run
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undo what Ray does to the handler of SIGTERM: its own raises SystemExit, past all that we print and close."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
