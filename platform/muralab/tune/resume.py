"""An interrupted search, resumed: its plan on disk, its runs in MLflow, its checkpoints in its folder."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from muralab.atomic import atomic_path
from muralab.config.commands import TrainConfig, TuneConfig
from muralab.config.options import options_of, restore_options
from muralab.config.resources import count_gpus
from muralab.config.search import SearchConfig, is_word, resolve_search
from muralab.config.training_options import DEMO, TrainingOptions
from muralab.data.dataset import Dataset
from muralab.data.images.value_range import range_from_text
from muralab.data.mirror import path_or_uri
from muralab.data.names import are_coded
from muralab.data.source import DatasetSource
from muralab.errors import DataError, RecipeError, SettingsError, StoreError, numbered
from muralab.processor import count_cpus
from muralab.recipe import Value
from muralab.recipe_loader import load_recipe
from muralab.results.changes import Inputs, changed_data, changed_inputs, present_inputs
from muralab.tracking import RunRecord, Store, is_alive, read_datasets, read_run
from muralab.tracking.tags import Tag
from muralab.training.trainer import best_name
from muralab.trial import TrialSpec, read_table, uses_bfloat16, write_table
from muralab.tune.adaptive import Observation
from muralab.tune.cluster import is_on_cluster, machines_of
from muralab.tune.folders import SWEEPS, TRIALS, Folders
from muralab.tune.plan import Sweep, open_data, source_of, with_inputs
from muralab.tune.portable import to_local, to_portable
from muralab.tune.preflight import check_trial
from muralab.tune.unchanged import (
    UNRECORDED,
    check_checkpoints,
    compare_corrections,
    compare_pictures,
    compare_weights,
    find_weights_again,
    refuse_changes,
)
from muralab.tune.weights import describe_weights

RUN_ID = re.compile(r"[\w-]+")
FOLDS_FILE = "folds.json"
"""In the folder of a run above several folds: its options."""
LATEST = "latest"
"""In place of a run id: the interrupted search that was started last."""
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
    inputs: Inputs = field(default_factory=Inputs)
    """Recipes and platform; empty in plans of earlier versions."""
    pictures: pd.DataFrame | None = None
    """The split with digests of its files; None in plans of earlier versions."""
    observed: Sequence[Observation] = ()
    """Trials of earlier sweeps that it learns from."""
    extended: int = 0
    """Trials per recipe that were added after it had ended."""
    kind: str = ""
    """tune, train or compare; empty in plans of earlier versions."""
    attempt: str = ""
    """Tells the command that worked on it last from all others; empty in plans of earlier versions."""


def write_plan(sweep: Sweep) -> None:
    """Write what `resume` needs: the plan, and the split beside it."""
    folders = sweep.folders
    _write_split(folders, sweep.dataset)
    content = {
        "options": sweep.config.options.to_dict(),
        "specs": [spec.to_dict() for spec in sweep.specs],
        "fingerprint": sweep.dataset.splits.fingerprint,
        "weights": sweep.weights,
        "notes": list(sweep.notes),
        "inputs": asdict(sweep.inputs),
        "observed": [asdict(one) for one in sweep.observed],
        "extended": sweep.extended,
        "attempt": uuid.uuid4().hex,
    }
    _write(folders, {"kind": sweep.kind, **to_portable(content, folders)})


def note_in_plan(folders: Folders, note: str, max_concurrent: int | None) -> None:
    """Add to a plan what happened to its search: a resumed one then runs as many trials at once as memory held."""
    content = json.loads(folders.plan.read_text(encoding="utf-8"))
    content["notes"] = list(dict.fromkeys([*content["notes"], note]))
    if max_concurrent is not None and "max_concurrent" in content["options"]:
        content["options"]["max_concurrent"] = max_concurrent
    _write(folders, content)


def note_chosen(folders: Folders, trial: str, values: Mapping[str, Value]) -> None:
    """Keep the values that were chosen for a trial in the plan: once it trains, it is resumed with them."""
    content = json.loads(folders.plan.read_text(encoding="utf-8"))
    specs = [{**spec, "drawn": dict(values)} if spec["name"] == trial else spec for spec in content["specs"]]
    _write(folders, {**content, "specs": specs})


def _write(folders: Folders, content: Mapping[str, Any]) -> None:
    with atomic_path(folders.plan, sync=True) as path:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _write_split(folders: Folders, dataset: Dataset) -> None:
    files = dataset.identities(dataset.index)["file"].to_numpy()
    write_table(folders.table, dataset.index.assign(file=files), dataset.tables)


def read_plan(folders: Folders, run_id: str) -> Plan:
    """What `write_plan` wrote.

    Raises:
        StoreError: the search has ended, or ran on another machine.
    """
    if not RUN_ID.fullmatch(run_id) or not folders.plan.is_file():
        raise StoreError(
            f"resume={run_id}: nothing of this sweep is left at {folders.sweep}. A sweep can be resumed on the machine "
            "where it was interrupted, and with storage=<its storage> on any other, until it has ended; the run id is "
            "the one that the interrupted sweep printed."
        )
    return parse_plan(folders.plan.read_text(encoding="utf-8"), folders, run_id)


def parse_plan(text: str, folders: Folders, run_id: str) -> Plan:
    """A plan from its file's text, with its trials in the folders as they are now.

    Raises:
        StoreError: it is damaged.
    """
    try:
        content = to_local(json.loads(text), folders)
        specs = [_in_folders(TrialSpec(**spec), folders) for spec in content.pop("specs")]
        inputs = Inputs(**content.pop("inputs", {}))
        observed = [Observation(**one) for one in content.pop("observed", ())]
        return Plan(specs=specs, inputs=inputs, observed=observed, pictures=_read_pictures(folders.table), **content)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folders, run_id, error) from error
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"resume={run_id}: {error.filename or folders.sweep} cannot be read: {reason}.") from error


def _in_folders(spec: TrialSpec, folders: Folders) -> TrialSpec:
    """A planned trial with its files where they are now: earlier versions wrote absolute paths."""
    own = folders.sweep / TRIALS / Path(spec.folder).name
    return replace(spec, table=str(folders.table), cache_folder=str(folders.cache), folder=str(own))


def _read_pictures(table: Path) -> pd.DataFrame | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
        return rows[rows["set"] != ""] if "file" in rows else None
    return None


def _damaged(folders: Folders, run_id: str, error: Exception) -> StoreError:
    return StoreError(
        f"resume={run_id}: the plan {folders.plan} is damaged, or another version wrote it ({error}). "
        "Start a new sweep."
    )


def load_sweep(
    run_id: str,
    store: Store,
    cache: Path,
    progress: Any,
    *,
    command: type[Options],
    kind: str,
    data: str = DEMO,
    fetch: Callable[[Options], Options] = lambda options: options,
    accept_changes: bool = False,
    elsewhere: Mapping[str, Any] | None = None,
    plan: Plan | None = None,
) -> Sweep:
    """An interrupted search as it was planned.

    Args:
        run_id: its run.
        store: that holds the run.
        cache: folder of plans and checkpoints.
        progress: shows long steps.
        command: the dataclass of its command's options.
        kind: of its run.
        data: where its tree is now, if it has moved; the default stands for where it was.
        fetch: returns its options with a path as data where that was a URI.
        accept_changes: whether it continues although what it depends on has changed.
        elsewhere: options of its cluster as they are now; those with their default stand for what they were.
        plan: of a sweep that has ended; None: the one on disk.

    Raises:
        StoreError: nothing of it is left on this machine.
        SettingsError: it still runs, another command started it, it needs a GPU or a recipe that is gone, or its
            pictures, recipes, weights or the platform have changed.
        WeightsError: its file of weights is gone.
        DataError: its data are gone, or are split in another way.
    """
    folders = Folders(cache=cache, sweep=cache / SWEEPS / run_id)
    plan = plan or read_plan(folders, run_id)
    record = read_run(store, run_id, predictions=False)
    _check_run(record, kind)
    options = _restore(plan, command, {"data": data, **(elsewhere or {})}, folders, run_id)
    options = fetch(replace(options, data=path_or_uri(options.data, record.tags.get(Tag.DATA_URI, ""))))
    config = resolve_again(options, plan.specs, run_id)
    specs = find_weights_again([with_earlier_values(spec) for spec in plan.specs], config)
    source, inputs = _find_source(config, run_id), present_inputs(config.recipes)
    other_weights = compare_weights(specs, plan.weights)
    changes = [
        *changed_inputs(plan.inputs, inputs),
        *other_weights,
        *compare_pictures(plan.pictures, source, cache),
        *compare_corrections(record.tags, source),
    ]
    if not accept_changes:
        refuse_changes(run_id, changes, kind)
    _check_networks(specs, run_id, changed=bool(changes))
    shown = range_from_text(specs[0].value_range)  # as its finished trials saw the pictures
    dataset = open_data(config, source, cache, progress, value_range=shown)
    _check_split(plan, dataset, run_id)
    if plan.pictures is None:  # of an earlier version, which logged a digest of each set
        changes += changed_data(None, read_datasets(store, run_id), dataset)
        if not accept_changes:
            refuse_changes(run_id, changes, kind)
    if (
        folders.table.exists() and are_coded(dataset.index) and not are_coded(read_table(folders.table))
    ):  # an earlier version planned it
        _write_split(folders, dataset)
    weights = describe_weights(Path(spec.weights) for spec in specs if spec.weights) if other_weights else plan.weights
    return Sweep(
        config=config,
        folders=folders,
        dataset=dataset,
        specs=with_inputs(specs, inputs, dataset),
        weights=weights,
        inputs=inputs,
        observed=tuple(plan.observed),
        extended=plan.extended,
        notes=tuple(dataset.hide_names(note) for note in (*plan.notes, *_resume_notes(plan, changes))),
        accepted=" ".join(filter(None, [record.tags.get(Tag.ACCEPTED_CHANGES, ""), *map(dataset.hide_names, changes)])),
        resumed=run_id,
    )


def _restore(plan: Plan, command: type[Options], given: Mapping[str, Any], folders: Folders, run_id: str) -> Options:
    """The options of an interrupted search, with the places where its tree, cluster and storage are now."""
    try:
        options = restore_options(command, plan.options)
    except TypeError as error:
        raise _damaged(folders, run_id, error) from error
    defaults = options_of(command)
    moved = {key: value for key, value in given.items() if value not in (None, defaults[key].default)}
    return replace(options, **moved)


def _check_networks(specs: Sequence[TrialSpec], run_id: str, *, changed: bool) -> None:
    """Refuse recipes that do not build a network or, after a change, not the network of the checkpoints."""
    for spec in {spec.recipe: spec for spec in specs}.values():
        check_trial(spec)
    if changed:
        check_checkpoints(specs, run_id)


def _check_split(plan: Plan, dataset: Dataset, run_id: str) -> None:
    """Refuse a data set that is split in another way: with other images, labels or patients."""
    if dataset.splits.fingerprint != plan.fingerprint:
        raise DataError(
            f"resume={run_id}: the data at {dataset.root} have changed since that sweep started: images, labels (also "
            "corrected ones) or patients are others (split fingerprint "
            f"{plan.fingerprint}, now {dataset.splits.fingerprint}). Start a new sweep."
        )


def _find_source(config: SearchConfig, run_id: str) -> DatasetSource:
    """The data set of a resumed search."""
    try:
        return source_of(config.options)
    except DataError as error:
        if Path(config.options.data).exists():
            raise
        raise DataError(f"resume={run_id}: {error} If the tree has moved, also give data=<where it is now>.") from error


def _resume_notes(plan: Plan, changes: Sequence[str]) -> list[str]:
    """What a reader of the report should know of the interruption."""
    notes = [] if plan.inputs.platform else [UNRECORDED]
    return [*notes, f"Resumed with accept_changes=true: {' '.join(changes)}"] if changes else notes


def with_earlier_values(spec: TrialSpec) -> TrialSpec:
    """A planned trial; one of an earlier version with the values its recipe had then.

    Its checkpoints then fit, and its score is of the full phase like those of the sweep's finished trials.
    """
    if spec.threshold:
        return spec
    return replace(spec, overrides={"kept_phase": "full", **load_recipe(spec.recipe).earlier, **spec.overrides})


def resolve_again(options: TrainingOptions, specs: Sequence[TrialSpec], run_id: str) -> SearchConfig:
    """The configuration with `study`, `all` and `auto` as they were resolved then: recipes come and go, and so do GPUs.

    Raises:
        SettingsError: the trials need a GPU that is not there, or a recipe.
    """
    names, gpu = sorted({spec.recipe for spec in specs}), any(spec.gpu for spec in specs)
    _check_needs(names, gpu, run_id)
    kept = replace(
        options,
        gpus_per_trial=options.gpus_per_trial if gpu else 0.0,
        cpus_per_trial=specs[0].threads if is_on_cluster(options) else min(specs[0].threads, count_cpus()),
        precision="bfloat16" if uses_bfloat16(specs[0]) else "float32",
    )
    if isinstance(kept, TuneConfig):
        recipes = tuple(names) if is_word(kept.recipes) else kept.recipes
        return resolve_search(
            kept,
            recipes,
            trials=kept.trials,
            max_concurrent=kept.max_concurrent,
            time_budget_s=kept.time_budget,
            search=kept.search,
            pruning=kept.pruning,
            machines=machines_of(kept, recipes),
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


def is_described(store: Store, run_id: str) -> bool:
    """Whether the inputs of a search's run are logged; an interruption may have come before."""
    return Tag.DESCRIBED in read_run(store, run_id, predictions=False).tags


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
