"""Figures of evaluated models on the test set. Each function returns a Figure and saves nothing.

Shapes: S studies, B bins, T thresholds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from muralab.evaluation import plot_style as style
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.operating_point import risk_coverage
from muralab.evaluation.predictions import Level
from muralab.evaluation.weighted_sums import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Band = tuple[float, float]
NO_STUDIES = "no studies"
ONE_CLASS = "undefined: the studies are of one class"
LABEL_WIDTH = 24
"""Characters per line of a model's title beside an interval."""


@style.styled
def plot_roc(models: Sequence[EvaluatedModel], highlighted: EvaluatedModel | None = None) -> Figure:
    """Receiver operating curves; a marker shows each model's own threshold."""
    figure, axes = style.new_axes("ROC, test studies", "false positive rate", "sensitivity", height_in=4.0)
    axes.plot([0, 1], [0, 1], color=style.MUTED, lw=1.0, ls=style.DOTS)
    drawn = False
    for position, model in _evaluated(models):
        curves = model.curves()
        if curves is None:
            continue
        drawn = True
        line = style.curve(position, highlighted=model is highlighted)
        axes.plot(curves.false_positive_rate, curves.sensitivity, label=_label(model, "auroc"), **line)
        (tn, fp), (fn, tp) = confusion(model)
        marker, color = style.marker(position), style.color(position)
        axes.plot(fp / (fp + tn), tp / (tp + fn), marker, color=color, mec="white", ms=8, zorder=4)
    style.finish(axes, drawn, "lower right", square=True, reason=ONE_CLASS)
    return figure


@style.styled
def plot_precision_recall(models: Sequence[EvaluatedModel], highlighted: EvaluatedModel | None = None) -> Figure:
    """Precision over recall; the dotted line is the prevalence, the precision of a random order."""
    figure, axes = style.new_axes(
        "Precision and recall, test studies", "recall (sensitivity)", "precision", height_in=4.0
    )
    prevalence = None
    for position, model in _evaluated(models):
        curves = model.curves()
        if curves is None:
            continue
        prevalence = _prevalence(model) if prevalence is None else prevalence
        line = style.curve(position, highlighted=model is highlighted)
        recall, precision = np.r_[0.0, curves.recall], np.r_[curves.precision[0], curves.precision]
        axes.step(recall, precision, where="pre", label=_label(model, "average_precision"), **line)
    if prevalence is not None:
        axes.axhline(prevalence, color=style.MUTED, lw=1.0, ls=style.DOTS)
    style.finish(axes, prevalence is not None, "lower left", square=True, reason=ONE_CLASS)
    return figure


@style.styled
def plot_decision_curve(models: Sequence[EvaluatedModel], highlighted: EvaluatedModel | None = None) -> Figure:
    """Net benefit over the threshold probability, compared with calling every study abnormal and none."""
    figure, axes = style.new_axes("Decision curve, test studies", "threshold probability", "net benefit", height_in=4.0)
    thresholds = np.linspace(0.01, 0.95, 95)
    usable = list(_evaluated(models))
    prevalence = _prevalence(usable[0][1]) if usable else 0.0
    treat_all = prevalence - (1 - prevalence) * thresholds / (1 - thresholds)
    axes.plot(thresholds, treat_all, color=style.MUTED, lw=1.2, ls=style.DOTS, label="call all abnormal")
    axes.axhline(0, color=style.INK, lw=0.8, label="call none abnormal")
    for position, model in usable:
        labels, probabilities = _scores(model)
        benefit = net_benefit(labels, probabilities, thresholds)
        line = style.curve(position, highlighted=model is highlighted)
        axes.plot(thresholds, benefit, label=model.title, **line)
    style.finish(axes, bool(usable), "upper right", reason=NO_STUDIES)
    top = max(prevalence, 0.1)
    axes.set_ylim(-0.25 * top, 1.3 * top)
    return figure


def net_benefit(labels: Ints, probabilities: Floats, thresholds: Floats) -> Floats:
    """True positives per study, minus the false positives weighted by the odds of the threshold; [T]."""
    called = probabilities[None, :] >= thresholds[:, None]
    true, false = (called & (labels == 1)).mean(axis=1), (called & (labels == 0)).mean(axis=1)
    return np.asarray(true - false * thresholds / (1 - thresholds), dtype=np.float64)


@style.styled
def plot_intervals(
    models: Sequence[EvaluatedModel], metric: str, *, level: Level = "study", references: Sequence[float] = ()
) -> Figure:
    """One row per model: a test metric and its 95% interval; dotted is chance.

    Args:
        models: one row each.
        metric: a name in `METRICS`.
        level: "image" (at 0.5) or "study" (at the fitted threshold).
        references: a published value for each model, drawn as a hollow diamond; NaN draws none.
    """
    known = METRICS[metric]
    name = f"{known.title} at 0.5" if level == "image" and known.uses_threshold else known.title
    unit = "images" if level == "image" else "studies"
    figure, axes = style.new_axes(
        f"{name}, test {unit}", f"{name}, 95% interval", "", height_in=1.25 + 0.42 * len(models)
    )
    axes.plot(references, range(len(references)), "D", color=style.MUTED, mfc="none", ms=8, ls="")
    if known.chance is not None:
        axes.axvline(known.chance, color=style.MUTED, lw=1.0, ls=style.DOTS)
    for i, model in enumerate(models):
        _draw_interval(axes, i, model, metric, level)
    axes.set_yticks(range(len(models)), [textwrap.fill(model.title, LABEL_WIDTH) for model in models])
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure


def _draw_interval(axes: Axes, row: int, model: EvaluatedModel, metric: str, level: Level) -> None:
    interval, color = model.intervals(level=level).get(metric), style.color(row)
    if interval is not None and np.isfinite(interval.estimate):
        axes.plot([interval.low, interval.high], [row, row], color=color, lw=2.2)
        axes.plot(interval.estimate, row, style.marker(row), color=color, mec="white", ms=8)
        return
    reason = (interval.reason if interval else model.problem()) or "undefined"
    where = axes.get_yaxis_transform()
    axes.text(0.5, row, reason, color=style.MUTED, size=7.5, va="center", ha="center", transform=where)


@style.styled
def plot_confusion(model: EvaluatedModel) -> Figure:
    """Counts and row shares at the operating point."""
    figure, axes = style.new_axes(f"Confusion at {model.threshold:.3f}", "called", "labelled", height_in=4.0)
    counts = confusion(model)
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


def confusion(model: EvaluatedModel) -> NDArray[np.int64]:
    """[[true negatives, false positives], [false negatives, true positives]] of the test studies."""
    from sklearn.metrics import confusion_matrix

    studies = model.studies()
    return np.asarray(confusion_matrix(studies["label"], studies["called"], labels=[0, 1]))


@style.styled
def plot_distribution(model: EvaluatedModel, *, uncertain: Band | None = None, n_bins: int = 20) -> Figure:
    """Calibrated probabilities of normal and abnormal studies, with the threshold and the uncertain band."""
    figure, axes = style.new_axes(
        "Calibrated probabilities, test studies", "probability abnormal", "studies", height_in=4.0
    )
    labels, probabilities = _scores(model)
    axes.hist(
        [probabilities[labels == label] for label in (0, 1)],
        bins=np.linspace(0, 1, n_bins + 1).tolist(),
        stacked=True,
        color=[style.color(5), style.color(1)],
        label=["normal", "abnormal"],
        rwidth=0.9,
    )
    axes.axvline(model.threshold, color=style.INK, lw=1.2, label=f"threshold {model.threshold:.3f}")
    if uncertain is not None:
        axes.axvspan(*uncertain, color=style.MUTED, alpha=0.15, lw=0, label="uncertain")
    axes.legend(loc="upper right")
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.3)
    return figure


@style.styled
def plot_reliability(model: EvaluatedModel, *, n_bins: int = 8) -> Figure:
    """Observed frequency over the predicted probability, in bins of equal size, before and after calibration."""
    figure, axes = style.new_axes(
        "Reliability, test studies", "predicted probability", "observed fraction abnormal", height_in=4.0
    )
    axes.plot([0, 1], [0, 1], color=style.MUTED, lw=1.0, ls=style.DOTS)
    labels, calibrated = _scores(model)
    raw = model.studies()["probability"].to_numpy(dtype=np.float64)
    predicted, observed, _, _ = reliability_bins(labels, raw, n_bins)
    axes.plot(predicted, observed, "o--", color=style.MUTED, mfc="white", lw=1.0, ms=5, label="before calibration")
    predicted, observed, low, high = reliability_bins(labels, calibrated, n_bins)
    errors, color = np.clip([observed - low, high - observed], 0, None), style.color(0)
    axes.errorbar(
        predicted, observed, yerr=errors, fmt="o-", ms=5, color=color, elinewidth=0.9, label="after calibration"
    )
    style.finish(axes, True, "upper left", square=True, reason="")
    return figure


def reliability_bins(labels: Ints, probabilities: Floats, n_bins: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean predicted probability, observed fraction and its Wilson 95% bounds, each [B], in bins of equal size."""
    from scipy.stats import binomtest

    order = np.argsort(probabilities, kind="stable")
    bins = [part for part in np.array_split(order, min(n_bins, len(order))) if len(part)]
    mean = np.array([probabilities[part].mean() for part in bins])
    observed = np.array([labels[part].mean() for part in bins])
    wilson = [binomtest(int(labels[part].sum()), len(part)).proportion_ci(method="wilson") for part in bins]
    return mean, observed, np.array([bounds.low for bounds in wilson]), np.array([bounds.high for bounds in wilson])


@style.styled
def plot_risk_coverage(model: EvaluatedModel, *, position: int = 0, uncertain: Band | None = None) -> Figure:
    """Error rate among the studies that are answered, when those nearest to the threshold are not.

    Args:
        model: with test studies.
        position: of the model among those shown together, for its colour.
        uncertain: the fitted band; its error rate and coverage are marked.
    """
    figure, axes = style.new_axes(
        "Risk and coverage, test studies", "share answered", "error rate among them", height_in=4.0
    )
    labels, probabilities = _scores(model)
    coverage, risk, _ = risk_coverage(labels, probabilities, model.threshold)
    axes.step(coverage, risk, where="post", color=style.color(position), label=model.title)
    if uncertain is not None:
        answered = ~((probabilities >= uncertain[0]) & (probabilities <= uncertain[1]))
        if answered.any():
            wrong = (probabilities >= model.threshold) != (labels == 1)
            point, label = (answered.mean(), float(wrong[answered].mean())), "outside the uncertain band"
            axes.plot(*point, "o", color=style.INK, mec="white", ms=8, label=label)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return figure


def _evaluated(models: Sequence[EvaluatedModel]) -> Iterator[tuple[int, EvaluatedModel]]:
    """The models with test studies, each with its position among all: its colour is the same in every figure."""
    return ((position, model) for position, model in enumerate(models) if model.problem() is None)


def _scores(model: EvaluatedModel) -> tuple[Ints, Floats]:
    """Labels and calibrated probabilities of the test studies, each [S]."""
    studies = model.studies()
    return studies["label"].to_numpy(dtype=np.int64), studies["calibrated"].to_numpy(dtype=np.float64)


def _prevalence(model: EvaluatedModel) -> float:
    return float(model.studies()["label"].mean())


def _label(model: EvaluatedModel, metric: str) -> str:
    value = model.intervals()[metric].estimate
    return model.title if np.isnan(value) else f"{model.title}  {value:.3f}"
