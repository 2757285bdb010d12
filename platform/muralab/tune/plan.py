"""Which trials a sweep runs, and about how long they take, before any of them starts."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from muralab.config.settings import CPU_TRIAL_BYTES, Request, Settings
from muralab.console import clock
from muralab.data.dataset import Dataset
from muralab.errors import StoreError
from muralab.recipe import Recipe, Value
from muralab.trial import TrialSpec, recipes_of, views_of
from muralab.tune.disk_space import feature_files, folder_bytes, pixel_files
from muralab.tune.preflight import Pace, measure_pace

PLAN_NAME = "plan.json"
RUN_ID = re.compile(r"[\w-]+")
HEAD_EPOCH_S = 0.2
"""An epoch of a head on cached features."""
START_S = 15.0
"""A worker's own start: a process that imports torch and timm."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where a sweep keeps what is not in MLflow."""

    cache: Path
    """Decoded images and features, shared by all sweeps."""
    sweep: Path
    """Checkpoints, Ray's files and the plan of this sweep; removed when it ends."""

    @property
    def table(self) -> Path:
        """The split, for the workers."""
        return self.sweep / "split.csv"

    @property
    def plan(self) -> Path:
        """What `resume` reads."""
        return self.sweep / PLAN_NAME


def draw_specs(settings: Settings, folders: Folders, weights: Mapping[str, str]) -> list[TrialSpec]:
    """Every trial of a sweep, from its seed alone: the first of each recipe is the recipe unchanged.

    Args:
        settings: of the sweep.
        folders: of the sweep.
        weights: recipe -> file of pretrained weights, or empty.
    """
    return [
        TrialSpec(
            name=f"{name}-{number:02d}",
            recipe=name,
            overrides=settings.overrides[name],
            drawn=draw_values(recipe, settings.request, name, number, fixed=settings.fixed),
            seed=settings.request.seed,
            weights=weights[name],
            table=str(folders.table),
            cache_folder=str(folders.cache),
            folder=str(folders.sweep / "trials" / f"{name}-{number:02d}"),
            objective=settings.request.objective,
            threads=settings.resources.cpus_per_trial,
            gpu=settings.resources.gpus_per_trial > 0,
        )
        for number in range(settings.trials)
        for name, recipe in settings.recipes.items()
    ]


def draw_values(
    recipe: Recipe, request: Request, name: str, number: int, *, fixed: Mapping[str, Value]
) -> dict[str, Value]:
    """The searched values of one trial; what the user has set is not drawn over."""
    if number == 0:
        return {}
    rng = np.random.default_rng([request.seed, zlib.crc32(name.encode()), number])
    drawn = {key: space.draw(rng) for key, space in recipe.search.items()}
    return {key: value for key, value in drawn.items() if key not in fixed}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """About how long trials take and how much disk they need."""

    epoch_s: Mapping[str, list[float]]
    """Recipe -> seconds of each epoch of one trial."""
    wall_s: float
    disk_bytes: int
    """On the cache's disk: decoded images, features, checkpoints."""
    there_bytes: int = 0
    """Of these, what is there already."""


def measure_paces(specs: Sequence[TrialSpec]) -> dict[str, Pace]:
    """Recipe -> what a step costs on this machine, timed on its first trial."""
    return {spec.recipe: measure_pace(spec) for spec in specs if not spec.drawn}


def estimate(
    specs: Sequence[TrialSpec],
    dataset: Dataset,
    concurrent: int,
    *,
    paces: Mapping[str, Pace],
    gpus: int = 0,
    keep_all: bool = False,
) -> Estimate:
    """Add up what was planned; pruning makes it less.

    Args:
        specs: the trials.
        dataset: that they train on.
        concurrent: trials at a time.
        paces: from `measure_paces`.
        gpus: that they share. A step was timed on a GPU of its own: two trials on one take about twice as long.
        keep_all: whether every trial keeps its weights, and not the best of each recipe alone.
    """
    sizes = {name: len(table) for name, table in dataset.tables.items()}
    recipes = {spec.recipe: recipes_of(spec)[1] for spec in specs if not spec.drawn}
    epoch_s = {name: _epoch_s(recipes[name], pace, sizes) for name, pace in paces.items()}
    trial_s = {name: sum(seconds) for name, seconds in epoch_s.items()}
    shared = max((_features_s(recipes[name], pace, sizes) for name, pace in paces.items()), default=0.0)
    total = sum(trial_s[spec.recipe] for spec in specs)
    side_by_side = min(concurrent, gpus) if gpus else concurrent
    wall = START_S + shared + max(total / side_by_side, *(trial_s[spec.recipe] for spec in specs))
    largest = max(pace.checkpoint_bytes for pace in paces.values())
    kept = sum(paces[name].weights_bytes for name in (spec.recipe for spec in specs if keep_all or not spec.drawn))
    n_seeds = len({spec.seed for spec in specs})
    cache = Path(specs[0].cache_folder)
    frozen = {name: recipes[name] for name, pace in paces.items() if pace.frozen_upper}
    files = pixel_files(len(dataset.index), (recipe.image_size for recipe in recipes.values()), cache)
    files += n_seeds * feature_files(frozen, sizes, cache)
    return Estimate(
        epoch_s=epoch_s,
        wall_s=wall,
        disk_bytes=concurrent * largest + kept + sum(file.n_bytes for file in files),
        there_bytes=sum(file.n_bytes for file in set(files) if file.is_there)
        + folder_bytes(Path(spec.folder) for spec in specs),
    )


def _epoch_s(recipe: Recipe, pace: Pace, sizes: Mapping[str, int]) -> list[float]:
    whole = sizes["train"] * pace.train_s + sizes["validation"] * pace.infer_s
    upper = HEAD_EPOCH_S if pace.frozen_upper else whole
    return [upper] * recipe.upper.epochs + [whole] * recipe.full.epochs


def _features_s(recipe: Recipe, pace: Pace, sizes: Mapping[str, int]) -> float:
    """Of the features that all trials of a frozen backbone share; computed once, before the search."""
    if not pace.frozen_upper:
        return 0.0
    return (views_of(recipe) * sizes["train"] + sizes["validation"]) * pace.infer_s


def in_order(specs: Sequence[TrialSpec], estimated: Estimate) -> list[TrialSpec]:
    """Every recipe's first trial before any second one, and long ones first, so that no slot idles at the end."""
    number = {spec.name: int(spec.name.rsplit("-", 1)[1]) for spec in specs}
    return sorted(specs, key=lambda spec: (number[spec.name], -sum(estimated.epoch_s[spec.recipe]), spec.name))


def plan_table(settings: Settings, estimated: Estimate) -> Any:
    """The plan as a rich table."""
    from rich.table import Table

    table = Table(title="Plan", title_justify="left")
    for heading in ("recipe", "what", "trials", "epochs (upper + full)", "image", "batch", "a trial, about"):
        table.add_column(heading, justify="left" if heading in ("recipe", "what") else "right")
    for name, recipe in settings.recipes.items():
        table.add_row(
            name,
            recipe.summary,
            str(settings.trials),
            f"{recipe.upper.epochs} + {recipe.full.epochs}",
            f"{recipe.image_size} px",
            str(recipe.batch_size),
            clock(sum(estimated.epoch_s[name])),
        )
    return table


def plan_sentence(settings: Settings, estimated: Estimate) -> str:
    """The plan's totals in a line."""
    resources = settings.resources
    trials = settings.trials * len(settings.recipes)
    epochs = settings.trials * sum(r.upper.epochs + r.full.epochs for r in settings.recipes.values())
    where = f"{resources.gpus_per_trial:g} GPU each" if resources.gpus_per_trial else "no GPU"
    by_cores = resources.cpus // resources.cpus_per_trial
    if not resources.gpus and settings.request.max_concurrent == "auto" and resources.max_concurrent < by_cores:
        where += f"; memory holds no more at {CPU_TRIAL_BYTES / 1e9:g} GB a trial, max_concurrent={by_cores} overrules"
    return (
        f"{trials} trials, {epochs} epochs at most; {resources.max_concurrent} at a time "
        f"({resources.cpus_per_trial} CPU cores and {where}); about {clock(estimated.wall_s)} or less (pruning), "
        f"{estimated.disk_bytes / 2**30:.1f} GiB of disk."
    )


def write_plan(folders: Folders, request: Request, specs: Sequence[TrialSpec], facts: Mapping[str, Any]) -> None:
    """Write what `resume` needs; the split lies beside it."""
    folders.sweep.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"request": request.to_dict(), "specs": [s.to_dict() for s in specs], **facts}, indent=1)
    folders.plan.write_text(text, encoding="utf-8")


def read_plan(folders: Folders, run_id: str) -> tuple[Request, list[TrialSpec], dict[str, Any]]:
    """What `write_plan` wrote: request, trials, and the other facts.

    Raises:
        StoreError: the sweep has ended, or ran on another machine.
    """
    if not RUN_ID.fullmatch(run_id) or not folders.plan.is_file():
        raise StoreError(
            f"resume={run_id}: nothing of this sweep is left at {folders.sweep}. A sweep can be resumed on the machine "
            "where it was interrupted, until it has ended; the run id is the one that the interrupted sweep printed."
        )
    try:
        plan = json.loads(folders.plan.read_text(encoding="utf-8"))
        request, specs = Request(**plan.pop("request")), [TrialSpec(**spec) for spec in plan.pop("specs")]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"resume={run_id}: the plan {folders.plan} is damaged, or another version wrote it ({error}). "
            "Start a new sweep."
        ) from error
    return request, specs, plan
