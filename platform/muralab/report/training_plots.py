"""Figures of how models were trained and searched. Each function returns a Figure and saves nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from muralab.evaluation import plot_style as style
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.report.context import SearchTrial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Column of the history, position in the palette, label.
LOSSES = (("train_loss", 0, "train"), ("val_loss", 1, "validation"))
ACCURACIES = (
    ("train_accuracy", 0, "train accuracy"),
    ("val_accuracy", 1, "validation accuracy"),
    ("val_study_auroc", 2, "validation AUROC, studies"),
)

Limits = tuple[tuple[float, float], tuple[float, float]]


def shared_limits(models: Sequence[EvaluatedModel]) -> Limits | None:
    """Limits of loss and of accuracy that fit all models, so that their figures compare; None without epochs.

    The top 2% of the losses are cut off.
    """
    ranges = []
    for columns, top in ((LOSSES, 0.98), (ACCURACIES, 1.0)):
        histories = [model.training.history for model in models]
        kept = [history[name] for history in histories for name, _, _ in columns if name in history]
        values = pd.concat(kept).dropna() if kept else pd.Series(dtype=float)
        if values.empty:
            return None
        low, high = float(values.min()), float(values.quantile(top))
        margin = 0.06 * max(high - low, 0.05)
        ranges.append((low - margin, high + margin))
    return ranges[0], ranges[1]


@style.styled
def plot_learning_curves(model: EvaluatedModel, *, limits: Limits | None = None) -> Figure:
    """Loss above, accuracy and AUROC below, over global epochs; a dashed line where the full phase begins.

    Args:
        model: with the history of its training.
        limits: of the two vertical axes, see `shared_limits`; None fits them to the model.
    """
    figure = style.new_figure(style.WIDTH_IN, 5.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.1])
    above.set_title(model.title, pad=18)
    history = model.training.history
    if history.empty:
        for axes in (above, below):
            style.draw_reason(axes, "no epochs were recorded")
        return figure
    _draw_columns(above, history, LOSSES)
    _draw_columns(below, history, ACCURACIES)
    above.set_ylabel("loss, image level")
    below.set_ylabel("accuracy at 0.5 / AUROC")
    below.set_xlabel("epoch")
    if limits is not None:
        above.set_ylim(limits[0])
        below.set_ylim(limits[1])
    _draw_boundary((above, below), history, "warm-up" if model.training.from_scratch else "upper")
    for axes in (above, below):
        axes.legend(loc="best")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def phase_boundary(history: pd.DataFrame) -> float | None:
    """The position between the epochs of the two phases; None where there is one phase."""
    if "phase" not in history or history["phase"].nunique() < 2:
        return None
    return float(history.index[history["phase"] >= 2].min()) - 0.5


def _draw_boundary(panels: Sequence[Axes], history: pd.DataFrame, first: str) -> None:
    boundary = phase_boundary(history)
    if boundary is None:
        return
    for axes in panels:
        axes.axvline(boundary, color=style.INK, lw=0.9, ls=(0, (2, 2)))
    for text, offset, side in ((first, -4, "right"), ("full", 4, "left")):
        panels[0].annotate(
            text, (boundary, 1), (offset, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha=side, va="bottom", size=7.5, color=style.MUTED,
        )  # fmt: skip


def _draw_columns(axes: Axes, history: pd.DataFrame, columns: Sequence[tuple[str, int, str]]) -> None:
    mark = "o" if len(history) <= 30 else ""
    for name, position, label in columns:
        if name in history and history[name].notna().any():
            axes.plot(
                history.index, history[name], marker=mark, ms=3.2,
                color=style.color(position), ls=style.line(position), label=label,
            )  # fmt: skip


def searched_keys(trials: Sequence[SearchTrial]) -> list[str]:
    """Names of the searched values that took at least two values, in the order of first use."""
    keys = dict.fromkeys(key for trial in trials for key in trial.values)
    return [key for key in keys if len({t.values[key] for t in trials if key in t.values}) > 1]


@style.styled
def plot_strength_response(trials: Sequence[SearchTrial], key: str, *, objective: str) -> Figure:
    """The objective over one searched value: one mark per trial, one colour per recipe, hollow if stopped early."""
    figure, axes = style.new_axes(key, "", objective_title(objective), height_in=3.5)
    chosen = [t for t in trials if key in t.values and not math.isnan(t.objective)]
    for position, recipe in enumerate(dict.fromkeys(t.recipe for t in trials)):
        own = [t for t in chosen if t.recipe == recipe]
        longest = max((t.epochs for t in own), default=0)
        for full in (True, False):
            shown = [t for t in own if (t.epochs >= longest) is full]
            if shown:
                color = style.color(position)
                axes.plot(
                    [t.values[key] for t in shown], [t.objective for t in shown], style.marker(position),
                    color=color, mfc=color if full else "white", ms=6, label=recipe if full else None,
                )  # fmt: skip
    if not chosen:
        style.draw_reason(axes, "no trial was evaluated")
        return figure
    numbers = [float(t.values[key]) for t in chosen if isinstance(t.values[key], (int, float))]
    if len(numbers) == len(chosen) and min(numbers) > 0 and is_rate(key):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(style.rate_locator(min(numbers), max(numbers)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(style.no_locator())
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)  # never over a mark
    axes.margins(0.08)
    return figure


def is_rate(key: str) -> bool:
    """Whether a value is searched over orders of magnitude."""
    return key.rsplit(".", 1)[-1] in ("lr", "rate", "learning_rate", "weight_decay")


def objective_title(objective: str) -> str:
    """`val_study_auroc` -> `validation AUROC, studies`; other names without their underscores."""
    known = {"val_study_auroc": "validation AUROC, studies", "val_auroc": "validation AUROC, images"}
    return known.get(objective, objective.replace("_", " "))
