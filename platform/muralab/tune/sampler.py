"""Which values each trial tries: drawn before the search starts, from the seed and the trial's number alone."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from muralab.config.search import SearchConfig
from muralab.recipe import Recipe, Value
from muralab.trial import TrialSpec
from muralab.tune.folders import Folders


def draw_specs(config: SearchConfig, folders: Folders, weights: Mapping[str, str]) -> list[TrialSpec]:
    """Every trial of a search; the first of each recipe is the recipe unchanged.

    Args:
        config: of the search.
        folders: of the search.
        weights: recipe -> file of pretrained weights, or empty.
    """
    options = config.options
    return [
        TrialSpec(
            name=f"{name}-{number:02d}",
            recipe=name,
            overrides=config.overrides[name],
            drawn=draw_values(recipe, name, number, seed=options.seed, fixed=config.fixed),
            seed=options.seed,
            weights=weights[name],
            table=str(folders.table),
            cache_folder=str(folders.cache),
            folder=str(folders.sweep / "trials" / f"{name}-{number:02d}"),
            objective=options.objective,
            threads=config.resources.cpus_per_trial,
            gpu=config.resources.gpus_per_trial > 0,
        )
        for number in range(config.trials)
        for name, recipe in config.recipes.items()
    ]


def draw_values(recipe: Recipe, name: str, number: int, *, seed: int, fixed: Mapping[str, Value]) -> dict[str, Value]:
    """The searched values of one trial; what the user set is not drawn over."""
    if number == 0:
        return {}
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    drawn = {key: space.draw(rng) for key, space in recipe.search.items()}
    return {key: value for key, value in drawn.items() if key not in fixed}
