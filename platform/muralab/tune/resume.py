"""An interrupted search, resumed: its plan on disk, its runs in MLflow, its checkpoints in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from muralab.atomic import atomic_path
from muralab.config.commands import TrainConfig, TrainingOptions, TuneConfig
from muralab.config.options import restore_options
from muralab.config.resources import count_cpus, count_gpus
from muralab.config.search import SearchConfig, resolve_search
from muralab.errors import DataError, RecipeError, SettingsError, StoreError, numbered
from muralab.recipe_loader import load_recipe
from muralab.tracking import RunRecord, Store, is_alive, read_run
from muralab.tracking.tags import Tag
from muralab.training.trainer import best_name
from muralab.training.weights import resolve_weights
from muralab.trial import TrialSpec, uses_bfloat16, write_table
from muralab.tune.folders import Folders
from muralab.tune.plan import Sweep, open_data, source_of
from muralab.tune.preflight import check_trial

RUN_ID = re.compile(r"[\w-]+")
Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is kept on disk of a search, so that it can be resumed."""

    options: Mapping[str, Any]
    """Of its command, as plain values."""
    specs: Sequence[TrialSpec]
    fingerprint: str
    """Of the split."""
    weights: str
    notes: Sequence[str]


def write_plan(sweep: Sweep) -> None:
    """Write what `resume` needs: the plan, and the split beside it."""
    write_table(sweep.folders.table, sweep.dataset.index, sweep.dataset.tables)
    content = {
        "options": sweep.config.options.to_dict(),
        "specs": [spec.to_dict() for spec in sweep.specs],
        "fingerprint": sweep.dataset.splits.fingerprint,
        "weights": sweep.weights,
        "notes": list(sweep.notes),
    }
    with atomic_path(sweep.folders.plan) as path:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_plan(folders: Folders, run_id: str) -> Plan:
    """What `write_plan` wrote.

    Raises:
        StoreError: the search has ended, or ran on another machine.
    """
    if not RUN_ID.fullmatch(run_id) or not folders.plan.is_file():
        raise StoreError(
            f"resume={run_id}: nothing of this sweep is left at {folders.sweep}. A sweep can be resumed on the machine "
            "where it was interrupted, until it has ended; the run id is the one that the interrupted sweep printed."
        )
    try:
        content = json.loads(folders.plan.read_text(encoding="utf-8"))
        specs = [TrialSpec(**spec) for spec in content.pop("specs")]
        return Plan(specs=specs, **content)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folders, run_id, error) from error


def _damaged(folders: Folders, run_id: str, error: Exception) -> StoreError:
    return StoreError(
        f"resume={run_id}: the plan {folders.plan} is damaged, or another version wrote it ({error}). "
        "Start a new sweep."
    )


def load_sweep(run_id: str, store: Store, cache: Path, progress: Any, *, command: type[Options], kind: str) -> Sweep:
    """An interrupted search as it was planned.

    Args:
        run_id: its run.
        store: that holds the run.
        cache: folder of plans and checkpoints.
        progress: shows long steps.
        command: the dataclass of its command's options.
        kind: of its run.

    Raises:
        StoreError: nothing of it is left on this machine.
        SettingsError: it still runs, another command started it, or it needs a GPU or a recipe that is gone.
        WeightsError: its file of weights is gone.
        DataError: its data have changed.
    """
    folders = Folders(cache=cache, sweep=cache / "sweeps" / run_id)
    plan = read_plan(folders, run_id)
    _check_run(read_run(store, run_id, predictions=False), kind)
    try:
        options = restore_options(command, plan.options)
    except TypeError as error:
        raise _damaged(folders, run_id, error) from error
    config = resolve_again(options, plan.specs, run_id)
    specs = [with_earlier_values(spec) for spec in plan.specs]
    for spec in {spec.recipe: spec for spec in specs}.values():
        if spec.weights:
            resolve_weights(spec.weights, config.recipes[spec.recipe].pretrained)
        check_trial(spec)
    dataset = open_data(config, source_of(config.options), cache, progress)
    if dataset.splits.fingerprint != plan.fingerprint:
        raise DataError(
            f"resume={run_id}: the data at {dataset.root} have changed since that sweep started (split fingerprint "
            f"{plan.fingerprint}, now {dataset.splits.fingerprint}). Start a new sweep."
        )
    return Sweep(
        config=config,
        folders=folders,
        dataset=dataset,
        specs=tuple(specs),
        weights=plan.weights,
        notes=tuple(plan.notes),
        resumed=run_id,
    )


def with_earlier_values(spec: TrialSpec) -> TrialSpec:
    """A planned trial; one of an earlier version with the values its recipe had then.

    Its checkpoints then fit, and its score is of the full phase like those of the sweep's finished trials.
    """
    if spec.threshold:
        return spec
    return replace(spec, overrides={"kept_phase": "full", **load_recipe(spec.recipe).earlier, **spec.overrides})


def resolve_again(options: TrainingOptions, specs: Sequence[TrialSpec], run_id: str) -> SearchConfig:
    """The configuration with `all` and `auto` as they were resolved then: recipes come and go, and so do GPUs.

    Raises:
        SettingsError: the trials need a GPU that is not there, or a recipe.
    """
    names, gpu = sorted({spec.recipe for spec in specs}), any(spec.gpu for spec in specs)
    _check_needs(names, gpu, run_id)
    kept = replace(
        options,
        gpus_per_trial=options.gpus_per_trial if gpu else 0.0,
        cpus_per_trial=min(specs[0].threads, count_cpus()),
        precision="bfloat16" if uses_bfloat16(specs[0]) else "float32",
    )
    if isinstance(kept, TuneConfig):
        recipes = tuple(names) if kept.recipes == ("all",) else kept.recipes
        return resolve_search(
            kept,
            recipes,
            trials=kept.trials,
            max_concurrent=kept.max_concurrent,
            time_budget_s=kept.time_budget,
            sampler=kept.sampler,
            pruning=kept.pruning,
        )
    assert isinstance(kept, TrainConfig)
    return resolve_search(kept, (kept.recipe,), trials=1)


def _check_needs(names: Sequence[str], gpu: bool, run_id: str) -> None:
    problems = []
    for name in names:
        try:
            load_recipe(name)
        except RecipeError as error:
            problems.append(f"{error} The sweep started with it: bring its file back.")
    if gpu and not count_gpus():
        problems.append("Its trials train on a GPU, and torch finds none on this machine (does nvidia-smi show it?).")
    if problems:
        raise SettingsError(
            numbered(f"resume={run_id}: this sweep cannot be resumed here. Fix this, or start a new one:", problems)
        )


def _check_run(run: RunRecord, kind: str) -> None:
    if run.kind != kind:
        raise SettingsError(f"resume={run.run_id}: `{run.kind or 'another program'}` started this run, not `{kind}`.")
    if run.status == "RUNNING" and is_alive(run.tags):
        raise SettingsError(
            f"resume={run.run_id}: this run is still running, in process {run.tags[Tag.PID]} of this machine. "
            "Wait for it, or interrupt it first."
        )


def has_weights(spec: TrialSpec) -> bool:
    """Whether a trial that ended can still be selected.

    The loser of a recipe cannot, and its winner may not be marked as ended: a process that was killed has removed the
    loser's weights before the store heard of the winner.
    """
    return (Path(spec.folder) / best_name("full")).is_file()
