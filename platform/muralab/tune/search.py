"""The trials of a search, from the pixels that they share to the last one's end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from muralab.config.parsing import LOCAL
from muralab.console import TrialRow, TrialTable, format_duration
from muralab.errors import StorageError
from muralab.experiment import warm_up
from muralab.search_space import Value
from muralab.tracking import RunWriter
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.adaptive import observe
from muralab.tune.cluster import code_modules
from muralab.tune.disk_space import feature_group
from muralab.tune.executor import StartRay, run_trials
from muralab.tune.live_progress import LiveProgress
from muralab.tune.plan import Sweep
from muralab.tune.ray_handle import RayProcess
from muralab.tune.remote import Remote
from muralab.tune.resume import note_chosen, note_in_plan
from muralab.tune.scheduler import Past
from muralab.tune.sweep_storage import SweepStorage
from muralab.tune.trial_logger import TrialLogger


def build_logger(
    sweep: Sweep,
    writer: RunWriter,
    console: Any,
    *,
    parent: str,
    epoch_s: Mapping[str, list[float]],
    on_interrupt: Callable[[], None],
    keep_all: bool = False,
    storage: SweepStorage | None = None,
) -> TrialLogger:
    """The listener of a search's trials.

    Args:
        sweep: as planned.
        writer: of runs.
        console: where the table of trials is shown.
        parent: the search's own run.
        epoch_s: recipe -> estimated seconds of each epoch.
        on_interrupt: called at Ctrl-C, before anything is taken down.
        keep_all: whether every trial keeps its weights, and not only the best of each recipe.
        storage: where the trials leave their files; None: in the search's own folders.
    """
    rows = {
        spec.name: TrialRow(
            name=spec.name,
            estimated_s=epoch_s[spec.recipe],
            over_phases=recipes_of(spec)[1].kept_phase == "best",
        )
        for spec in sweep.specs
    }
    resources, objective = sweep.config.resources, sweep.config.options.objective
    table = TrialTable(rows, resources.max_concurrent, objective, console)
    return TrialLogger(
        writer=writer,
        table=table,
        specs={spec.name: spec for spec in sweep.specs},
        dataset=sweep.dataset,
        parent=parent,
        tags=sweep.tags,
        on_interrupt=on_interrupt,
        on_adapted=lambda note, at_once: _keep_note(sweep, storage, note, at_once),
        on_chosen=lambda name, values: _keep_chosen(sweep, storage, name, values),
        keep_all=keep_all,
        storage=storage,
        progress=LiveProgress(writer, parent, table),
    )


def _keep_note(sweep: Sweep, storage: SweepStorage | None, note: str, at_once: int | None) -> None:
    """Keep in the plan what happened; a storage that fails now gets it with the next change, or when it is resumed."""
    note_in_plan(sweep.folders, note, at_once)
    if storage is not None:
        with suppress(StorageError):
            storage.upload_plan(wait_s=0.0)


def _keep_chosen(sweep: Sweep, storage: SweepStorage | None, name: str, values: Mapping[str, Value]) -> None:
    """Keep in the plan what was chosen for a trial, wherever the search is resumed."""
    note_chosen(sweep.folders, name, values)
    if storage is not None:
        storage.upload_plan()


def run_search(
    sweep: Sweep,
    logger: TrialLogger,
    console: Any,
    *,
    past: Mapping[str, Past] | None = None,
    prune: bool = True,
    start_ray: StartRay = RayProcess,
) -> None:
    """Compute what the trials share, and run those that have not ended.

    Args:
        sweep: as planned.
        logger: hears of everything.
        console: for progress.
        past: trials that ended before an interruption.
        prune: whether poor trials are stopped early.
        start_ray: see `run_trials`.
    """
    past = past or {}
    waiting = [spec for spec in sweep.specs if spec.name not in past]
    if not waiting:
        return
    started = time.monotonic()
    if logger.storage is None:
        console.print("Computing what the trials share: decoded images, features of frozen backbones.")
        for spec in sharing_features(waiting):
            warm_up(spec)
    else:  # every node computes the features that its trials need
        console.print("Uploading what the trials read: decoded images, pretrained weights.")
        logger.storage.upload_inputs(waiting, sweep.dataset)
    console.print(f"Ready after {format_duration(time.monotonic() - started)}; starting Ray.", highlight=False)
    budget = sweep.config.time_budget_s
    scored = [name for name in past if name in logger.scores]
    with logger.table:
        logger.deadline = None if budget is None else time.monotonic() + budget
        run_trials(
            waiting,
            resources=sweep.config.resources,
            listener=logger,
            folder=sweep.folders.sweep / "ray",
            time_budget_s=budget,
            past=past,
            observed=[*sweep.observed, *(observe(logger.specs[name], logger.scores[name]) for name in scored)],
            prune=prune,
            usual_epoch_s={name: max(row.estimated_s, default=0.0) for name, row in logger.table.rows.items()},
            remote=None if logger.storage is None else describe_remote(sweep, waiting, logger.storage),
            start_ray=start_ray,
        )
        logger.stop_running()


def describe_remote(sweep: Sweep, specs: Sequence[TrialSpec], storage: SweepStorage) -> Remote:
    """How trials run whose files are in a storage."""
    config = sweep.config
    address = getattr(config.options, "ray_address", LOCAL)
    return Remote(
        storage=storage.storage.uri,
        sweep=storage.name,
        specs={spec.name: storage.spec_on_nodes(spec) for spec in specs},
        address=address,
        modules=code_modules(config.recipes) if address != LOCAL else (),
        grows=address != LOCAL and config.max_concurrent is None,
    )


def sharing_features(specs: Sequence[TrialSpec]) -> list[TrialSpec]:
    """One trial of each group that shares images and features."""
    groups = {(feature_group(spec.recipe, recipes_of(spec)[0]), spec.seed): spec for spec in specs}
    return list(groups.values())
