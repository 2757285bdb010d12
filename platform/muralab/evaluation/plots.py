"""Figures of how well models judge. Each function returns a Figure and saves nothing. S studies, N images, B bins."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from muralab.evaluation import plot_style as style
from muralab.evaluation.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
ONE_CLASS = "undefined: the studies are of one class"
LABEL_WIDTH = 24
"""Characters of a model's title in a line beside an interval."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """One model on studies, as the figures need it."""

    title: str
    labels: NDArray[np.int64]
    """0 or 1, [S]."""
    probabilities: Floats
    """Calibrated, in [0, 1], [S]."""
    threshold: float = 0.5
    position: int = 0
    """Which colour and line style."""
    strong: bool = False
    """Drawn thick and solid: the model that the page is about."""
    auroc: float = float("nan")
    average_precision: float = float("nan")

    @property
    def one_class(self) -> bool:
        """Whether ranking is undefined."""
        return len(set(self.labels.tolist())) < 2


def counts_by_threshold(labels: NDArray[np.int64], probabilities: Floats) -> tuple[Floats, Floats]:
    """True and false positives at every distinct threshold, from the strictest on, starting at (0, 0)."""
    order = np.argsort(-probabilities, kind="stable")
    ranked, scores = labels[order], probabilities[order]
    last_of_ties = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]
    true = np.cumsum(ranked)[last_of_ties]
    return np.r_[0.0, true], np.r_[0.0, last_of_ties + 1 - true]


def confusion(labels: NDArray[np.int64], probabilities: Floats, threshold: float) -> NDArray[np.int64]:
    """[[true negatives, false positives], [false negatives, true positives]]."""
    called = (probabilities >= threshold).astype(int)
    return np.bincount(labels.astype(int) * 2 + called, minlength=4).reshape(2, 2)


@style.styled
def plot_roc(scores: Sequence[Scores]) -> Figure:
    """Receiver operating curves on studies; a dot marks each model's own threshold."""
    figure, axes = style.new_axes("ROC, test studies", "false positive rate", "sensitivity", height_in=4.0)
    axes.plot([0, 1], [0, 1], color=style.MUTED, lw=1.0, ls=style.DOTS)
    drawn = [s for s in scores if not s.one_class]
    for s in drawn:
        true, false = counts_by_threshold(s.labels, s.probabilities)
        axes.plot(
            false / false[-1], true / true[-1], label=_label(s, s.auroc), **style.curve(s.position, strong=s.strong)
        )
        (tn, fp), (fn, tp) = confusion(s.labels, s.probabilities, s.threshold)
        axes.plot(
            fp / (fp + tn),
            tp / (tp + fn),
            style.marker(s.position),
            color=style.color(s.position),
            mec="white",
            ms=8,
            zorder=4,
        )
    style.finish(axes, bool(drawn), "lower right", square=True, reason=ONE_CLASS)
    return figure


@style.styled
def plot_precision_recall(scores: Sequence[Scores]) -> Figure:
    """Precision over recall on studies; the dotted line is the prevalence, what chance reaches."""
    figure, axes = style.new_axes(
        "Precision and recall, test studies", "recall (sensitivity)", "precision", height_in=4.0
    )
    drawn = [s for s in scores if not s.one_class]
    for s in drawn:
        true, false = counts_by_threshold(s.labels, s.probabilities)
        precision = true[1:] / (true[1:] + false[1:])
        axes.step(
            true / true[-1], np.r_[precision[0], precision], where="pre",
            label=_label(s, s.average_precision), **style.curve(s.position, strong=s.strong),
        )  # fmt: skip
    if drawn:
        axes.axhline(float(drawn[0].labels.mean()), color=style.MUTED, lw=1.0, ls=style.DOTS)
    style.finish(axes, bool(drawn), "lower left", square=True, reason=ONE_CLASS)
    return figure


@style.styled
def plot_confusion(labels: NDArray[np.int64], probabilities: Floats, threshold: float, *, title: str = "") -> Figure:
    """Counts and row shares at the operating point."""
    figure, axes = style.new_axes(title or f"Confusion at {threshold:.3f}", "called", "labelled", height_in=4.0)
    counts = confusion(labels, probabilities, threshold)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.grid(visible=False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25)
    for row in range(2):
        for column in range(2):
            ink = "white" if shares[row, column] > 0.6 else style.INK
            axes.text(column, row - 0.06, str(counts[row, column]), ha="center", color=ink, size=17, weight="bold")
            axes.text(column, row + 0.2, f"{shares[row, column]:.0%}", ha="center", color=ink, size=9)
    axes.set_xticks([0, 1], ["normal", "abnormal"])
    axes.set_yticks([0, 1], ["normal", "abnormal"], rotation=90, va="center")
    axes.spines[:].set_visible(False)
    return figure


@style.styled
def plot_distribution(s: Scores, *, uncertain: tuple[float, float] | None = None, n_bins: int = 20) -> Figure:
    """Calibrated probabilities of normal and abnormal studies, with the threshold and the band of uncertainty."""
    figure, axes = style.new_axes(
        "Calibrated probabilities, test studies", "probability abnormal", "studies", height_in=4.0
    )
    edges = np.linspace(0, 1, n_bins + 1)
    parts = [s.probabilities[s.labels == label] for label in (0, 1)]
    axes.hist(
        parts,
        bins=edges.tolist(),
        stacked=True,
        color=[style.color(5), style.color(1)],
        label=["normal", "abnormal"],
        rwidth=0.9,
    )
    axes.axvline(s.threshold, color=style.INK, lw=1.2, label=f"threshold {s.threshold:.3f}")
    if uncertain is not None:
        axes.axvspan(*uncertain, color=style.MUTED, alpha=0.15, lw=0, label="uncertain")
    style.finish(axes, bool(len(s.labels)), "upper right", reason="no studies")
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.3)
    return figure


@style.styled
def plot_intervals(
    titles: Sequence[str],
    intervals: Sequence[Interval],
    *,
    name: str,
    chance: float | None = None,
    unit: str = "studies",
    marks: Sequence[float] = (),
) -> Figure:
    """A row a model: the estimate and its 95 % interval; dotted is chance, a hollow diamond a published figure."""
    height_in = 1.25 + 0.42 * len(titles)
    figure, axes = style.new_axes(f"{name}, test {unit}", f"{name}, 95 % interval", "", height_in=height_in)
    axes.plot(marks, range(len(marks)), "D", color=style.MUTED, mfc="none", ms=8, ls="")
    if chance is not None:
        axes.axvline(chance, color=style.MUTED, lw=1.0, ls=style.DOTS)
    for i, interval in enumerate(intervals):
        if np.isfinite(interval.estimate):
            axes.plot([interval.low, interval.high], [i, i], color=style.color(i), lw=2.2)
            axes.plot(interval.estimate, i, style.marker(i), color=style.color(i), mec="white", ms=8)
        else:
            axes.text(
                0.5,
                i,
                interval.reason or "undefined",
                color=style.MUTED,
                size=7.5,
                va="center",
                ha="center",
                transform=axes.get_yaxis_transform(),
            )
    axes.set_yticks(range(len(titles)), [textwrap.fill(title, LABEL_WIDTH) for title in titles])
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure


@style.styled
def plot_class_balance(index: pd.DataFrame) -> Figure:
    """Normal and abnormal images of every part and split, with the abnormal/normal ratio above each pair.

    Args:
        index: columns split, part, label, an image a row.
    """
    names = list(dict.fromkeys(index["split"]))
    figure = style.new_figure(style.WIDTH_IN * 1.5, max(1, len(names)) * 2.6)
    for axes, name in zip(np.atleast_1d(figure.subplots(max(1, len(names)), 1)), names or [""], strict=True):
        axes.set_title(f"{name}: images by part")
        _draw_balance(axes, index[index["split"] == name])
    return figure


def _draw_balance(axes: Axes, index: pd.DataFrame) -> None:
    counts = index.groupby(["part", "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    if counts.empty:
        style.say_empty(axes, "no images")
        return
    places = np.arange(len(counts))
    for label, name, shade in ((0, "normal", style.color(5)), (1, "abnormal", style.color(1))):
        axes.bar(places + (label - 0.5) * 0.38, counts[label], 0.36, color=shade, label=name)
    for place, (normal, abnormal) in zip(places, counts.to_numpy().tolist(), strict=True):
        ratio = f"{abnormal / normal:.2f}" if normal else "–"
        axes.annotate(ratio, (place, max(normal, abnormal)), (0, 4), textcoords="offset points", ha="center", size=8)
    axes.set_xticks(places, counts.index)
    axes.set_ylabel("images")
    axes.margins(y=0.35)  # room for the ratios and the legend
    axes.grid(visible=False, axis="x")
    axes.legend(title="ratio abnormal / normal above", title_fontsize=7.8, ncols=2, loc="upper right")


@style.styled
def sample_grid(images: NDArray[np.uint8], captions: Sequence[str], *, columns: int = 6) -> Figure:
    """Pictures in rows, each under its caption.

    Args:
        images: uint8 [N, S, S].
        captions: one a picture.
        columns: pictures in a row.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    figure = style.new_figure(1.45 * columns, 1.65 * rows)
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, image, caption in zip(panels, images, captions, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, size=7.5, weight="normal", pad=3)
    return figure


def _label(s: Scores, value: float) -> str:
    return s.title if np.isnan(value) else f"{s.title}  {value:.3f}"
