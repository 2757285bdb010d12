"""Which figures a report shows, each with the words under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from muralab.evaluation import plots as figures
from muralab.evaluation import reliability_plots as reliability
from muralab.evaluation.bootstrap import Interval
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.operating_point import MAX_ABSTAINED, MIN_STUDIES, RISK_TARGET
from muralab.evaluation.plots import Scores
from muralab.report.curves import plot_learning_curves, plot_strength_response, searched_keys, shared_limits
from muralab.report.entries import Context, Trial
from muralab.report.judge import Judged
from muralab.report.references import study_accuracies
from muralab.report.sentences import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure and its words."""

    figure: Figure
    alt: str
    caption: str = ""


def model_charts(judged: Sequence[Judged], winner: Judged | None, context: Context) -> dict[str, list[Chart]]:
    """The figures of the evaluated models by section: intervals, images, curves, ranking, operating."""
    scores = [
        to_scores(one, position, strong=one is winner) for position, one in enumerate(judged) if one.studies is not None
    ]
    own = next((s for s, one in zip(scores, _usable(judged), strict=True) if one is winner), None)
    limits = shared_limits([one.entry for one in judged])
    return {
        "intervals": _interval_charts(judged) if scores else [],
        "images": _image_charts(judged, context) if scores else [],
        "curves": [
            Chart(figure=plot_learning_curves(one.entry, limits=limits), alt=f"learning curves of {one.entry.title}")
            for one in judged
        ],
        "ranking": _ranking_charts(scores) if scores else [],
        "operating": _operating_charts(winner, own) if winner and own else [],
    }


def to_scores(judged: Judged, position: int, *, strong: bool = False) -> Scores:
    """A judged entry as the figures need it."""
    assert judged.studies is not None

    def estimate(name: str) -> float:
        return judged.intervals[name].estimate if name in judged.intervals else math.nan

    return Scores(
        title=judged.entry.title,
        labels=judged.studies["label"].to_numpy(dtype=np.int64),
        probabilities=judged.studies["calibrated"].to_numpy(dtype=np.float64),
        threshold=judged.entry.threshold,
        position=position,
        strong=strong,
        auroc=estimate("auroc"),
        average_precision=estimate("average_precision"),
    )


def search_charts(trials: Sequence[Trial], objective: str) -> list[Chart]:
    """A strength-response figure for every searched value that took at least two values."""
    return [
        Chart(figure=plot_strength_response(trials, key, objective=objective), alt=f"{objective} over {key}")
        for key in searched_keys(trials)
    ]


def _usable(judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if one.studies is not None]


def _interval_charts(judged: Sequence[Judged]) -> list[Chart]:
    titles = [one.entry.title for one in judged]
    charts = []
    for metric, name, chance in (("auroc", "AUROC", 0.5), ("kappa", "Kappa", 0.0)):
        intervals = [one.intervals.get(metric) or _nothing(one.reason) for one in judged]
        figure = figures.plot_intervals(titles, intervals, name=name, chance=chance)
        charts.append(Chart(figure=figure, alt=f"{name} of every model with its 95 % interval"))
    return charts


def _image_charts(judged: Sequence[Judged], context: Context) -> list[Chart]:
    """Accuracy on images, the study's figure of the same network beside ours where the two are of one kind."""
    measured, words = study_accuracies(context)
    recipes = [one.entry.resolved.get("recipe", one.entry.name) for one in judged]
    figure = figures.plot_intervals(
        [one.entry.title for one in judged],
        [one.images.get("accuracy") or _nothing(one.reason) for one in judged],
        name="Accuracy at 0.5",
        unit="images",
        marks=[measured.get(recipe, math.nan) for recipe in recipes],
    )
    return [Chart(figure=figure, alt="accuracy on images of every model with its 95 % interval", caption=words)]


def _nothing(reason: str | None) -> Interval:
    return Interval(estimate=math.nan, low=math.nan, high=math.nan, n_resamples=0, reason=reason or "not judged")


def _ranking_charts(scores: Sequence[Scores]) -> list[Chart]:
    return [
        Chart(
            figure=figures.plot_roc(scores),
            alt="receiver operating curves",
            caption="In the legend: AUROC. A mark on each curve is the model’s own threshold.",
        ),
        Chart(
            figure=figures.plot_precision_recall(scores),
            alt="precision over recall",
            caption="In the legend: average precision. Dotted: the share of abnormal studies.",
        ),
        Chart(
            figure=reliability.plot_decision_curve(scores),
            alt="decision curves",
            caption="Net benefit of acting on a model, for every exchange rate of a missed finding and a false alarm.",
        ),
    ]


def _risk_caption(winner: Judged, band: tuple[float, float] | None) -> str:
    gained = "What is gained by leaving the studies nearest to the threshold to a person."
    if band is None:
        return (
            f"{gained} No uncertain band was fitted: the validation set has under {MIN_STUDIES} studies, or no band of "
            f"at most {MAX_ABSTAINED:.0%} of them lowers its error rate by {1 - RISK_TARGET:.0%}."
        )
    assert winner.studies is not None
    inside = winner.studies["calibrated"].between(*band).mean()
    return (
        f"{gained} The uncertain band, {number(band[0])} to {number(band[1])}, was fitted on validation studies and "
        f"holds {inside:.0%} of the test studies."
    )


def _threshold_words(calibration: Calibration | None) -> str:
    if calibration is None or calibration.reason:
        return "Studies at 0.5: no threshold could be fitted"
    return f"Studies at the threshold that was fitted on validation studies (rule {calibration.rule})"


def _operating_charts(winner: Judged, own: Scores) -> list[Chart]:
    assert winner.studies is not None
    raw = winner.studies["probability"].to_numpy(dtype=np.float64)
    calibration = winner.entry.calibration
    band = None
    if calibration and calibration.uncertain_low is not None and calibration.uncertain_high is not None:
        band = (calibration.uncertain_low, calibration.uncertain_high)
    return [
        Chart(
            figure=figures.plot_confusion(own.labels, own.probabilities, own.threshold),
            alt="confusion matrix at the threshold",
            caption=f"{_threshold_words(calibration)}; shares are of each row.",
        ),
        Chart(
            figure=reliability.plot_reliability(own.labels, raw, own.probabilities),
            alt="reliability diagram",
            caption="Bins of equal size; bars are Wilson 95 % intervals that take studies as independent.",
        ),
        Chart(
            figure=figures.plot_distribution(own, uncertain=band),
            alt="histogram of calibrated probabilities",
            caption="Bars are stacked: normal below, abnormal above.",
        ),
        Chart(
            figure=reliability.plot_risk_coverage(own, uncertain=band),
            alt="risk over coverage",
            caption=_risk_caption(winner, band),
        ),
    ]
