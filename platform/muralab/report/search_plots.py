"""Figures of a search: learning curves of all trials, parallel coordinates, and how much each searched value matters.

Each function returns a Figure and saves nothing. Shapes: N trials.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from muralab.evaluation import plot_style as style
from muralab.report.context import SearchTrial
from muralab.report.importance import Importance
from muralab.report.training_plots import is_rate, objective_title, searched_keys

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_importances(found: Sequence[Importance]) -> Figure:
    """Rank correlation of each searched value with the objective, with its interval; one row per value and recipe."""
    keys = list(dict.fromkeys(one.key for one in found))
    recipes = list(dict.fromkeys(one.recipe for one in found))
    height_in = 1.1 + 0.28 * len(found)
    title, label = "What mattered in the search", "rank correlation with the objective"
    figure, axes = style.new_axes(title, label, "", height_in=height_in)
    rows = sorted(found, key=lambda one: (keys.index(one.key), recipes.index(one.recipe)))
    for place, one in enumerate(rows):
        position = recipes.index(one.recipe)
        axes.plot([one.low, one.high], [place, place], color=style.color(position), lw=1.6)
        axes.plot(
            [one.correlation], [place], style.marker(position), color=style.color(position), ms=6,
            label=one.recipe if one.recipe not in [earlier.recipe for earlier in rows[:place]] else None,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [one.key for one in rows])
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0, color=style.MUTED, lw=0.9)
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / height_in), ncols=2)
    return figure


@style.styled
def plot_trial_curves(trials: Sequence[SearchTrial], *, objective: str) -> Figure:
    """The objective of every trial over its epochs, one panel per recipe; the best trial is thick, ends are marked."""
    recipes = list(dict.fromkeys(trial.recipe for trial in trials if len(trial.curve)))
    figure = style.new_figure(style.WIDTH_IN, 0.6 + 2.1 * max(len(recipes), 1))
    if not recipes:
        style.draw_reason(figure.subplots(), "no epochs were recorded")
        return figure
    panels = np.atleast_1d(figure.subplots(len(recipes), 1, sharey=True))
    for position, (axes, recipe) in enumerate(zip(panels, recipes, strict=True)):
        _draw_curves(axes, [t for t in trials if t.recipe == recipe and len(t.curve)], style.color(position))
        axes.set_title(recipe)
        axes.set_ylabel(objective_title(objective))
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[-1].set_xlabel("epoch")
    return figure


def _draw_curves(axes: Axes, trials: Sequence[SearchTrial], color: str) -> None:
    best = max(trials, key=lambda trial: -math.inf if math.isnan(trial.objective) else trial.objective)
    for trial in trials:
        thick = trial is best
        axes.plot(
            trial.curve.index, trial.curve, color=color, lw=2.2 if thick else 0.9, alpha=1.0 if thick else 0.55,
            label=f"{trial.name} (best)" if thick else None,
        )  # fmt: skip
        mark = {"pruned": "x", "failed": "X", "stopped": "s"}.get(trial.status)
        if mark:
            axes.plot(trial.curve.index[-1:], trial.curve[-1:], mark, color=color, ms=5)
    if best.boundary is not None:
        axes.axvline(best.boundary, color=style.INK, lw=0.9, ls=(0, (2, 2)))
    axes.legend(loc="best")


@style.styled
def plot_parallel(trials: Sequence[SearchTrial], *, objective: str) -> Figure:
    """Parallel coordinates: one line per trial across its searched values to the objective, coloured by it."""
    import matplotlib as mpl

    axes_keys = [*searched_keys(trials), objective_title(objective)]
    figure, axes = style.new_axes("Searched values and objective", "", "", height_in=3.6)
    scored = [trial for trial in trials if not math.isnan(trial.objective)]
    rows = pd.DataFrame([{**_numbers(trial.values), axes_keys[-1]: trial.objective} for trial in scored])
    rows = rows.reindex(columns=axes_keys)
    scales = {key: _scale(rows[key], log=is_rate(key)) for key in axes_keys}
    colours = mpl.colormaps["viridis"]
    for _, row in rows.sort_values(axes_keys[-1]).iterrows():
        # Not all recipes search all values.
        places = [place for place, key in enumerate(axes_keys) if not math.isnan(row[key])]
        heights = [scales[axes_keys[place]](row[axes_keys[place]]) for place in places]
        axes.plot(places, heights, color=colours(0.92 * heights[-1]), lw=1.3, alpha=0.85)
    for place, key in enumerate(axes_keys):
        axes.vlines(place, 0, 1, color=style.MUTED, lw=0.8)
        low, high = rows[key].min(), rows[key].max()
        for height, value in ((0, low), (1, high)):
            axes.annotate(
                f"{value:.3g}", (place, height), (0, -11 if height == 0 else 4), textcoords="offset points",
                ha="center", fontsize=7.5, color=style.MUTED,
            )  # fmt: skip
    # Wrapped, so that seven axes have room for their names on a phone.
    names = [re.sub(r"([._]) *| +", r"\1\n", key) for key in axes_keys]
    axes.set_xticks(range(len(axes_keys)), names, multialignment="center")
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.1)
    return figure


def _numbers(values: Mapping[str, float | str]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}


def _scale(column: pd.Series, *, log: bool) -> _Scale:
    values = np.log(column) if log and (column.dropna() > 0).all() else column
    return _Scale(low=float(values.min()), high=float(values.max()), log=values is not column)


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Maps the range of an axis to 0 to 1; a single value lies in the middle."""

    low: float
    high: float
    log: bool

    def __call__(self, value: float) -> float:
        own = math.log(value) if self.log and value > 0 else value
        return 0.5 if self.high <= self.low else (own - self.low) / (self.high - self.low)
