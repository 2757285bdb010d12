"""Figures of how far a probability can be relied on; each function returns one. S studies, B bins, T thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from muralab.evaluation import plot_style as style
from muralab.evaluation.operating_point import risk_coverage
from muralab.evaluation.plots import Floats, Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_STUDIES = "no studies"


@style.styled
def plot_reliability(labels: NDArray[np.int64], raw: Floats, calibrated: Floats, *, n_bins: int = 8) -> Figure:
    """Observed frequency over the stated probability, in bins of equal size, before and after the temperature."""
    figure, axes = style.new_axes(
        "Reliability, test studies", "stated probability", "observed fraction abnormal", height_in=4.0
    )
    axes.plot([0, 1], [0, 1], color=style.MUTED, lw=1.0, ls=style.DOTS)
    if len(labels):
        stated, observed, _, _ = reliability_bins(labels, raw, n_bins)
        axes.plot(stated, observed, "o--", color=style.MUTED, mfc="white", lw=1.0, ms=5, label="before calibration")
        stated, observed, low, high = reliability_bins(labels, calibrated, n_bins)
        errors = np.clip([observed - low, high - observed], 0, None)
        axes.errorbar(
            stated,
            observed,
            yerr=errors,
            fmt="o-",
            ms=5,
            color=style.color(0),
            elinewidth=0.9,
            label="after calibration",
        )
    style.finish(axes, bool(len(labels)), "upper left", square=True, reason=NO_STUDIES)
    return figure


def reliability_bins(labels: NDArray[np.int64], stated: Floats, n_bins: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean stated probability, observed fraction and its Wilson 95 % bounds, each [B], in bins of equal size."""
    order = np.argsort(stated, kind="stable")
    bins = [part for part in np.array_split(order, min(n_bins, len(order))) if len(part)]
    size = np.array([len(part) for part in bins], dtype=float)
    mean = np.array([stated[part].mean() for part in bins])
    observed = np.array([labels[part].mean() for part in bins])
    z = 1.959964
    center = (observed + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(observed * (1 - observed) / size + z**2 / (4 * size**2))
    return mean, observed, center - half, center + half


@style.styled
def plot_decision_curve(scores: Sequence[Scores]) -> Figure:
    """Net benefit over the threshold probability, beside calling every study abnormal and none."""
    figure, axes = style.new_axes("Decision curve, test studies", "threshold probability", "net benefit", height_in=4.0)
    thresholds = np.linspace(0.01, 0.95, 95)
    prevalence = float(scores[0].labels.mean()) if scores and len(scores[0].labels) else 0.0
    treat_all = prevalence - (1 - prevalence) * thresholds / (1 - thresholds)
    axes.plot(thresholds, treat_all, color=style.MUTED, lw=1.2, ls=style.DOTS, label="call all abnormal")
    axes.axhline(0, color=style.INK, lw=0.8, label="call none abnormal")
    for s in scores:
        benefit = net_benefit(s.labels, s.probabilities, thresholds)
        axes.plot(thresholds, benefit, label=s.title, **style.curve(s.position, strong=s.strong))
    style.finish(axes, bool(scores), "upper right", reason=NO_STUDIES)
    top = max(prevalence, 0.1)
    axes.set_ylim(-0.25 * top, 1.3 * top)
    return figure


def net_benefit(labels: NDArray[np.int64], probabilities: Floats, thresholds: Floats) -> Floats:
    """True positives a study, less the false positives weighed by the odds of the threshold; [T]."""
    called = probabilities[None, :] >= thresholds[:, None]
    true, false = (called & (labels == 1)).mean(axis=1), (called & (labels == 0)).mean(axis=1)
    return np.asarray(true - false * thresholds / (1 - thresholds), dtype=np.float64)


@style.styled
def plot_risk_coverage(s: Scores, *, uncertain: tuple[float, float] | None = None) -> Figure:
    """The error rate among the studies that are answered, when those nearest the threshold are left to a person."""
    figure, axes = style.new_axes(
        "Risk and coverage, test studies", "share answered", "error rate among them", height_in=4.0
    )
    if not len(s.labels):
        style.say_empty(axes, NO_STUDIES)
        return figure
    coverage, risk, _ = risk_coverage(s.labels, s.probabilities, s.threshold)
    axes.step(coverage, risk, where="post", color=style.color(s.position), label=s.title)
    if uncertain is not None:
        answered = ~((s.probabilities >= uncertain[0]) & (s.probabilities <= uncertain[1]))
        wrong = (s.probabilities >= s.threshold) != (s.labels == 1)
        if answered.any():
            rate = float(wrong[answered].mean())
            axes.plot(
                answered.mean(), rate, "o", color=style.INK, mec="white", ms=8, label="outside the uncertain band"
            )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
    return figure
