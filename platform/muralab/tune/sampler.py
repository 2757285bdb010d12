"""Which values each trial tries, drawn before the search starts from the seed, the key and the trial's number alone.

Every key has a sequence of quantiles, and the recipe's range turns a quantile into a value. So trial 3 of
two recipes has `full.lr` at the same quantile of their ranges (the same value where the ranges are equal), whatever
else the recipes search and whatever the user has fixed; and more trials leave the earlier ones as they are.

`quasi`: a scrambled Sobol sequence (Owen 1998; Joe & Kuo 2008), which fills the space of all keys evenly from the first
trials on. `random`: independent draws. `tpe`: the first trials are those of `quasi`; the values of the others are
chosen when they start, from what earlier ones have reached (`adaptive.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from muralab.config.search import SearchConfig
from muralab.recipe import Recipe, Value
from muralab.trial import TrialSpec
from muralab.tune.folders import TRIALS, Folders

SOBOL_KEYS = (
    "full.lr",
    "augment.zoom",
    "augment.rotate_degrees",
    "augment.shift",
    "augment.contrast",
    "model.dropout",
    "full.weight_decay",
    "upper.lr",
    "full.backbone_lr_factor",
    "augment.noise",
    "augment.gamma",
    "augment.blur",
    "augment.clahe",
    "augment.cutout",
    "augment.elastic",
)
"""Keys with a dimension of the joint sequence, in its order: the first dimensions cover their space best.

Only append to this list: another order would change the draws of every seed.
"""
SOBOL_DIMENSIONS = 32
"""Of the joint sequence, used or not: its scrambling depends on their number."""

Quantiles = npt.NDArray[np.float64]


FIRST_CHOSEN = 5
"""With `tpe`: how many trials of a recipe come before the first one whose values are chosen from what they reached."""


def draw_specs(config: SearchConfig, folders: Folders, weights: Mapping[str, str]) -> list[TrialSpec]:
    """Every trial of a search; the first of each recipe is the recipe unchanged.

    Args:
        config: of the search.
        folders: of the search.
        weights: recipe -> file of pretrained weights, or empty.
    """
    options = config.options
    drawn = {
        name: draw_values(recipe, config.trials, seed=options.seed, fixed=config.fixed[name], search=config.search)
        for name, recipe in config.recipes.items()
    }

    def values_of(name: str, number: int) -> dict[str, Any]:
        values = drawn[name][number]
        if config.search == "tpe" and number >= FIRST_CHOSEN:
            return {"draws": list(values)}
        return {"drawn": values}

    return [
        TrialSpec(
            name=f"{name}-{number:02d}",
            recipe=name,
            overrides=config.overrides[name],
            seed=options.seed,
            weights=weights[name],
            table=str(folders.table),
            cache_folder=str(folders.cache),
            folder=str(folders.sweep / TRIALS / f"{name}-{number:02d}"),
            objective=options.objective,
            threshold=options.threshold,
            threads=config.resources.cpus_per_trial,
            gpu=config.resources.gpus_per_trial > 0,
            precision=config.precision,
            **values_of(name, number),
        )
        for number in range(config.trials)
        for name in config.recipes
    ]


def draw_values(
    recipe: Recipe, n_trials: int, *, seed: int, fixed: Mapping[str, Value], search: str
) -> list[dict[str, Value]]:
    """The searched values of every trial: none for the first one, and none that the user has set.

    Args:
        recipe: with the ranges to search.
        n_trials: how many trials, at least 1.
        seed: of the search.
        fixed: what the user has set; its keys are not searched.
        search: one of `SEARCHES`.
    """
    keys = [key for key in recipe.search if key not in fixed]
    quantiles = {key: draw_quantiles(key, n_trials - 1, seed=seed, search=search) for key in keys}
    drawn = [
        {key: recipe.search[key].value_at(float(quantiles[key][number])) for key in keys}
        for number in range(n_trials - 1)
    ]
    return [{}, *drawn]


def draw_quantiles(key: str, n: int, *, seed: int, search: str) -> Quantiles:
    """The first quantiles of a key, in [0, 1), shape [n]: trial 1 takes the first one.

    Args:
        key: of the search space, such as `full.lr`.
        n: how many.
        seed: of the search.
        search: one of `SEARCHES`.
    """
    if search == "random":
        seeds = ([seed, zlib.crc32(key.encode()), number] for number in range(1, n + 1))
        return np.array([np.random.default_rng(one).random() for one in seeds])
    if key in SOBOL_KEYS:
        return _sobol(n, SOBOL_DIMENSIONS, np.random.default_rng(seed))[:n, SOBOL_KEYS.index(key)]
    return _one_dimension(key, n, seed)


def _one_dimension(key: str, n: int, seed: int) -> Quantiles:
    """The quantiles of a key that has no dimension of the joint sequence: a one-dimensional Sobol sequence of its own.

    Two such sequences fill the halves, quarters, ... of their axes in step, which would leave parts of the plane empty.
    Therefore the points that each doubling adds (1, 2, 4, ...) come in an order of the key's own.
    """
    sequence, order = np.random.default_rng([seed, zlib.crc32(key.encode())]).spawn(2)
    points = _sobol(n, 1, sequence)[:, 0]
    parts, size = [points[:1]], 1
    while size < len(points):
        parts.append(points[size : 2 * size][order.permutation(size)])
        size *= 2
    return np.concatenate(parts)[:n]


def _sobol(n: int, dimensions: int, rng: np.random.Generator) -> Quantiles:
    """A scrambled Sobol sequence of at least `n` points, [power of 2, dimensions]; more points extend it."""
    from scipy.stats import qmc

    points: Quantiles = qmc.Sobol(dimensions, rng=rng).random_base2(max(n - 1, 0).bit_length())
    return points
