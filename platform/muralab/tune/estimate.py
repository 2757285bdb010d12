"""About how long a search takes and how much disk it needs, before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muralab.data.dataset import Dataset
from muralab.recipe import Recipe
from muralab.trial import TrialSpec, recipes_of, views_of
from muralab.tune.disk_space import feature_files, folder_bytes, pixel_files
from muralab.tune.preflight import Pace, measure_pace

HEAD_EPOCH_S = 0.2
"""Seconds of an epoch of a head on cached features."""
START_S = 15.0
"""Seconds until a worker has imported torch and timm."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time and disk of a search, about."""

    epoch_s: Mapping[str, list[float]]
    """Recipe -> seconds of each epoch of one trial."""
    wall_s: float
    disk_bytes: int
    """On the cache's disk: decoded images, features, checkpoints."""
    present_bytes: int = 0
    """The part of these that exists already."""
    weights_bytes: int = 0
    """Of the largest network."""


def measure_paces(specs: Sequence[TrialSpec]) -> dict[str, Pace]:
    """Recipe -> the cost of a step on this machine, timed on its first trial."""
    return {spec.recipe: measure_pace(spec) for spec in specs if spec.is_unchanged}


def estimate(
    specs: Sequence[TrialSpec],
    dataset: Dataset,
    concurrent: int,
    *,
    paces: Mapping[str, Pace],
    gpus: int = 0,
    keep_all: bool = False,
) -> Estimate:
    """Add up what is planned; pruning makes it less.

    Args:
        specs: the trials.
        dataset: that they train on.
        concurrent: trials at a time.
        paces: from `measure_paces`.
        gpus: that they share. A step was timed with a GPU to itself: two trials on one take about twice as long.
        keep_all: whether every trial keeps its weights, and not the best of each recipe alone.
    """
    sizes = {name: len(table) for name, table in dataset.tables.items()}
    recipes = {spec.recipe: recipes_of(spec)[1] for spec in specs if spec.is_unchanged}
    epoch_s = {name: _epoch_s(recipes[name], pace, sizes) for name, pace in paces.items()}
    trial_s = {name: sum(seconds) for name, seconds in epoch_s.items()}
    shared = max((_features_s(recipes[name], pace, sizes) for name, pace in paces.items()), default=0.0)
    total = sum(trial_s[spec.recipe] for spec in specs)
    side_by_side = min(concurrent, gpus) if gpus else concurrent
    wall = START_S + shared + max(total / side_by_side, *(trial_s[spec.recipe] for spec in specs))
    largest = max(pace.checkpoint_bytes for pace in paces.values())
    kept = sum(paces[spec.recipe].weights_bytes for spec in specs if keep_all or spec.is_unchanged)
    n_seeds = len({spec.seed for spec in specs})
    cache = Path(specs[0].cache_folder)
    frozen = {name: recipes[name] for name, pace in paces.items() if pace.frozen_upper}
    files = pixel_files(
        len(dataset.index), (size for recipe in recipes.values() for size in recipe.decoded_sizes), cache
    )
    files += n_seeds * feature_files(frozen, sizes, cache)
    return Estimate(
        epoch_s=epoch_s,
        wall_s=wall,
        disk_bytes=concurrent * largest + kept + sum(file.n_bytes for file in files),
        present_bytes=sum(file.n_bytes for file in set(files) if file.is_cached)
        + folder_bytes(Path(spec.folder) for spec in specs),
        weights_bytes=max(pace.weights_bytes for pace in paces.values()),
    )


def _epoch_s(recipe: Recipe, pace: Pace, sizes: Mapping[str, int]) -> list[float]:
    whole = sizes["train"] * pace.train_s + sizes["validation"] * pace.infer_s
    upper = HEAD_EPOCH_S if pace.frozen_upper else whole
    return [upper] * recipe.upper.epochs + [whole] * recipe.full.epochs


def _features_s(recipe: Recipe, pace: Pace, sizes: Mapping[str, int]) -> float:
    """Seconds for the features that all trials of a frozen backbone share, computed once before the search."""
    if not pace.frozen_upper:
        return 0.0
    return (views_of(recipe) * sizes["train"] + sizes["validation"]) * pace.infer_s
