"""Values that a trial tries, chosen from what other trials of its recipe have reached.

A tree-structured Parzen estimator (TPE; Bergstra et al. 2011; here Optuna's, through Ray Tune's `OptunaSearch`) models
where good and where poor trials lie, over all keys jointly, and proposes what is likely among the good ones. It is
built anew for each choice, from the observations and a seed of the trial's own: so a choice depends on nothing that a
process holds, and a resumed search chooses as the interrupted one would have done.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muralab.recipe import resolved_values
from muralab.recipe_loader import load_recipe
from muralab.search_space import Choice, LogUniform, Space, Value, rounded
from muralab.trial import TrialSpec, recipes_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RANDOM_BELOW = 2
"""Observations without which values are drawn at random: one point has no neighbours."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a trial has tried and reached; serializable as JSON."""

    trial: str
    """Its name; of an earlier sweep, the id of its run."""
    recipe: str
    values: Mapping[str, Value]
    """Of every key that the recipe can search, whether it was drawn or not."""
    objective: float
    """NaN for a trial that diverged: it counts as the worst."""


def observe(spec: TrialSpec, objective: float) -> Observation:
    """What a trial that has ended has tried and reached."""
    values = resolved_values(recipes_of(spec)[1])
    searched = load_recipe(spec.recipe).search
    return Observation(
        trial=spec.name, recipe=spec.recipe, values={key: values[key] for key in searched}, objective=objective
    )


def choose_values(
    spec: TrialSpec, observed: Sequence[Observation], running: Sequence[TrialSpec] = ()
) -> dict[str, Value]:
    """Values of the keys that a trial draws.

    Args:
        spec: the trial.
        observed: trials that have ended; those of other recipes, and those whose values the recipe cannot draw, are
            ignored.
        running: trials that run meanwhile; what these try is not proposed again.
    """
    ranges = load_recipe(spec.recipe).search
    own = {key: ranges[key] for key in spec.draws}
    ended = sorted((one for one in observed if one.recipe == spec.recipe), key=lambda one: one.trial)
    points = [(_within(one.values, own), one.objective) for one in ended]
    known = [(point, objective) for point, objective in points if point is not None]
    others = [observe(one, math.nan).values for one in running if one.recipe == spec.recipe and not one.is_undrawn]
    beside = [point for values in others if (point := _within(values, own)) is not None]
    found = _ask(own, known, beside, seed=zlib.crc32(f"{spec.seed} {spec.name}".encode()))
    return {key: value if isinstance(own[key], Choice) else rounded(float(value)) for key, value in found.items()}


def _within(values: Mapping[str, Value], ranges: Mapping[str, Space]) -> dict[str, Value] | None:
    """The values of these ranges' keys; None where one is missing or outside its range."""
    if not all(key in values and space.contains(values[key]) for key, space in ranges.items()):
        return None
    return {key: values[key] for key in ranges}


def _ask(
    ranges: Mapping[str, Space],
    known: Sequence[tuple[Mapping[str, Value], float]],
    beside: Sequence[Mapping[str, Value]],
    *,
    seed: int,
) -> dict[str, Any]:
    """What the estimator proposes, given points with their objectives and points whose objectives are not known yet."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, n_startup_trials=RANDOM_BELOW
    )
    search = OptunaSearch(
        {key: _distribution(space) for key, space in ranges.items()},
        metric="objective",
        mode="max",
        sampler=sampler,
        points_to_evaluate=[dict(point) for point in beside],
    )
    lowest = min((objective for _, objective in known if not math.isnan(objective)), default=0.0)
    for point, objective in known:
        search.add_evaluated_point(dict(point), lowest if math.isnan(objective) else objective)
    for place in range(len(beside)):
        search.suggest(f"beside-{place}")
    return dict(search.suggest("next"))


def _distribution(space: Space) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(space, Choice):
        return CategoricalDistribution(space.values)
    return FloatDistribution(space.low, space.high, log=isinstance(space, LogUniform))
