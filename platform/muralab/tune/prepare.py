"""Everything that a sweep needs before it starts: what was asked for, weights, data, the list of trials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from muralab.config.resources import count_cpus, count_gpus
from muralab.config.settings import Request, Settings, check_request
from muralab.console import build_progress
from muralab.data.dataset import Dataset, DatasetSource, find_dataset, open_dataset
from muralab.errors import DataError, RecipeError, SettingsError, WeightsError, numbered
from muralab.recipe_loader import load_recipe
from muralab.tracking import RunRecord, Store, is_alive, read_run
from muralab.tracking.tags import Tag
from muralab.training.weights import file_digest, resolve_weights
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.disk_space import check_space, pixel_files
from muralab.tune.plan import Folders, draw_specs, read_plan
from muralab.tune.preflight import check_trial


@dataclass(frozen=True, kw_only=True)
class Job:
    """Where a command runs: everything that it would otherwise take from its environment, absolute."""

    tracking_uri: str
    cache: Path
    run_id: str | None = None
    """The run that `mlflow run` has made for this command."""
    experiment: str | None = None
    """Where a run is made if there is none; None: `mura-<part>`."""


@dataclass(kw_only=True)
class Sweep:
    """What the steps of a sweep hand on."""

    settings: Settings
    store: Store
    console: Any
    folders: Folders
    dataset: Dataset
    specs: list[TrialSpec]
    weights: str
    """Pretrained weights in words."""
    notes: list[str] = field(default_factory=list)
    resumed: str | None = None
    """The run whose sweep goes on."""

    @property
    def facts(self) -> dict[str, str]:
        """Tags that every run of the sweep carries."""
        request = self.settings.request
        return {
            Tag.PART: request.part,
            Tag.SYNTHETIC: str(self.dataset.synthetic).lower(),
            Tag.SEED: str(request.seed),
            Tag.SPLIT_FINGERPRINT: self.dataset.splits.fingerprint,
            Tag.PROTOCOL: request.protocol,
            Tag.OBJECTIVE: request.objective,
            Tag.WEIGHTS: self.weights,
        }


def prepare(request: Request, job: Job, store: Store, console: Any) -> Sweep:
    """A new sweep, checked in full.

    Raises:
        MuraLabError: what a user can mend.
    """
    settings = check_request(request)
    source = _find_data(settings)
    files = pixel_files(source.n_images, (recipe.image_size for recipe in settings.recipes.values()), job.cache)
    check_space(sum(file.n_bytes for file in files if not file.is_there), job.cache)
    weights, description, notes = find_weights(settings)
    folders = Folders(cache=job.cache, sweep=job.cache / "sweeps" / f"new-{time.time_ns()}")
    specs = draw_specs(settings, folders, weights)
    for spec in specs[: len(settings.recipes)]:
        check_trial(spec)
    dataset = _open_data(source, specs, job, console)
    return Sweep(
        settings=settings,
        store=store,
        console=console,
        folders=folders,
        dataset=dataset,
        specs=specs,
        weights=description,
        notes=[*notes, *dataset.notes],
    )


def _find_data(settings: Settings) -> DatasetSource:
    request = settings.request
    return find_dataset(request.data, request.part, protocol=request.protocol, seed=request.seed)


def _open_data(source: DatasetSource, specs: Sequence[TrialSpec], job: Job, console: Any) -> Dataset:
    """The data set, decoded at every size that a trial needs."""
    sizes = {recipe.image_size for spec in specs for recipe in recipes_of(spec)}
    return open_dataset(source, image_sizes=sizes, cache_folder=job.cache, progress=build_progress(console))


def find_weights(settings: Settings) -> tuple[dict[str, str], str, list[str]]:
    """Recipe -> file of weights (or empty), the same in words, and notes. Resolved once, for all trials.

    Raises:
        WeightsError: they cannot be had, and the data are real.
    """
    request = settings.request
    files = dict.fromkeys(settings.recipes, "")
    wanted = {name: recipe.pretrained for name, recipe in settings.recipes.items() if recipe.pretrained}
    if not wanted:
        return files, "none needed", []
    try:
        by_network = {network: resolve_weights(request.weights, network) for network in set(wanted.values())}
    except WeightsError as error:
        if not (request.is_demo and request.weights == "auto"):
            raise
        note = f"{error} The demo goes on with random weights; its figures are lower for it."
        return files, "random (no ImageNet weights could be had)", [note]
    for name, network in wanted.items():
        files[name] = str(by_network[network] or "")
    found = {path for path in by_network.values() if path}
    words = "; ".join(f"{path.name} {file_digest(path)}" for path in sorted(found))
    return files, words or "random (as asked)", []


def take_up_sweep(run_id: str, job: Job, store: Store, console: Any, *, kind: str = "tune") -> Sweep:
    """An interrupted sweep as it was; `kind` is the command's.

    Raises:
        StoreError: nothing of it is left on this machine.
        SettingsError: it still runs, another command began it, or it needs a GPU or a recipe that has gone.
        WeightsError: its file of weights has gone.
        DataError: its data have changed.
    """
    folders = Folders(cache=job.cache, sweep=job.cache / "sweeps" / run_id)
    request, specs, facts = read_plan(folders, run_id)
    _check_run(read_run(store, run_id, predictions=False), kind)
    settings = check_request(as_begun(request, specs, run_id))
    for spec in {spec.recipe: spec for spec in specs}.values():
        if spec.weights:
            resolve_weights(spec.weights, settings.recipes[spec.recipe].pretrained)
        check_trial(spec)
    dataset = _open_data(_find_data(settings), specs, job, console)
    if dataset.splits.fingerprint != facts["fingerprint"]:
        raise DataError(
            f"resume={run_id}: the data at {dataset.root} have changed since that sweep began (split fingerprint "
            f"{facts['fingerprint']}, now {dataset.splits.fingerprint}). Start a new sweep."
        )
    console.print(f"Going on with the sweep {run_id}; its own parameters hold.", highlight=False)
    return Sweep(
        settings=settings,
        store=store,
        console=console,
        folders=folders,
        dataset=dataset,
        specs=specs,
        weights=facts["weights"],
        notes=facts["notes"],
        resumed=run_id,
    )


def as_begun(request: Request, specs: Sequence[TrialSpec], run_id: str) -> Request:
    """What was asked for, with `all` and `auto` as they were read then: recipes come and go, and so do GPUs.

    Raises:
        SettingsError: the trials need a GPU that is not there, or a recipe.
    """
    names, gpu = sorted({spec.recipe for spec in specs}), any(spec.gpu for spec in specs)
    problems = []
    for name in names:
        try:
            load_recipe(name)
        except RecipeError as error:
            problems.append(f"{error} The sweep began with it: bring its file back.")
    if gpu and not count_gpus():
        problems.append("Its trials train on a GPU, and torch finds none on this machine now (nvidia-smi shows it?).")
    if problems:
        raise SettingsError(
            numbered(
                f"resume={run_id}: this sweep cannot go on as things are; mend this, or start a new one:", problems
            )
        )
    return replace(
        request,
        recipes=",".join(names) if request.recipes.strip() == "all" else request.recipes,
        gpus_per_trial=request.gpus_per_trial if gpu else "0",
        cpus_per_trial=str(min(specs[0].threads, count_cpus())),
    )


def _check_run(run: RunRecord, kind: str) -> None:
    if run.kind != kind:
        raise SettingsError(f"resume={run.run_id}: `{run.kind or 'another program'}` began this run, not `{kind}`.")
    if run.status == "RUNNING" and is_alive(run.tags):
        raise SettingsError(
            f"resume={run.run_id}: this run still goes on, in process {run.tags['muralab.pid']} of this machine. "
            "Wait for it, or interrupt it first."
        )
