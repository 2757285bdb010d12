"""Which trials of a very long search a report shows: a page with ten thousand lines in a figure helps nobody."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from muralab.report.context import SearchTrial

BEST, OTHERS = 100, 100
"""Per recipe: the best ones, and some of the others, evenly spaced from better to worse."""


def shown_trials(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """The trials in figures and in the table, in their order: all of a recipe that has at most 200."""
    chosen = {id(trial) for recipe in {one.recipe for one in trials} for trial in _of_recipe(trials, recipe)}
    return [trial for trial in trials if id(trial) in chosen]


def left_out(trials: Sequence[SearchTrial]) -> str:
    """A sentence that says how many trials are not shown; empty where all are."""
    n_shown = len(shown_trials(trials))
    if n_shown == len(trials):
        return ""
    return (
        f"{n_shown:,} of {len(trials):,} trials are shown here and in the figures: of each recipe the best {BEST}, and "
        f"{OTHERS} of the others, evenly spaced from better to worse. MLflow has all of them."
    )


def _of_recipe(trials: Sequence[SearchTrial], recipe: str) -> list[SearchTrial]:
    own = sorted((one for one in trials if one.recipe == recipe), key=rank)
    if len(own) <= BEST + OTHERS:
        return own
    places = np.linspace(BEST, len(own) - 1, OTHERS).astype(int)
    return [*own[:BEST], *(own[place] for place in places)]


def rank(trial: SearchTrial) -> float:
    """Sorts the best trial first, and those without an objective last."""
    return math.inf if math.isnan(trial.objective) else -trial.objective
