"""Which figures a report shows, each with its caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muralab.evaluation import plots
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import METRICS, main_metrics
from muralab.evaluation.operating_point import BAND_SHARE, MIN_STUDIES
from muralab.report.context import Context, SearchTrial
from muralab.report.importance import importances, too_few_trials
from muralab.report.references import study_accuracies
from muralab.report.search_plots import plot_importances, plot_parallel, plot_trial_curves
from muralab.report.sentences import number
from muralab.report.shown_trials import shown_trials
from muralab.report.training_plots import plot_learning_curves, plot_strength_response, searched_keys, shared_limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure with its text alternative and caption."""

    figure: Figure
    alt: str
    caption: str = ""


def model_charts(
    models: Sequence[EvaluatedModel], best: EvaluatedModel | None, context: Context
) -> dict[str, list[Chart]]:
    """The figures of the evaluated models by section: intervals, images, curves, ranking."""
    limits = shared_limits(models)
    evaluated = any(model.problem() is None for model in models)
    return {
        "intervals": _interval_charts(models) if evaluated else [],
        "images": _image_charts(models, context) if evaluated else [],
        "curves": [
            Chart(figure=plot_learning_curves(model, limits=limits), alt=f"learning curves of {model.title}")
            for model in models
            if not model.is_pooled
        ],
        "ranking": _ranking_charts(models, best) if evaluated else [],
    }


def search_charts(trials: Sequence[SearchTrial], objective: str) -> list[Chart]:
    """Learning curves, parallel coordinates, importances of all trials, and the objective over each searched value."""
    shown = shown_trials(trials)
    responses = [
        Chart(figure=plot_strength_response(shown, key, objective=objective), alt=f"{objective} over {key}")
        for key in searched_keys(shown)
    ]
    return [*_trial_charts(shown, objective), *_importance_charts(trials), *responses]


def _trial_charts(trials: Sequence[SearchTrial], objective: str) -> list[Chart]:
    if all(math.isnan(trial.objective) for trial in trials):
        return []
    curves = Chart(
        figure=plot_trial_curves(trials, objective=objective),
        alt=f"{objective} of every trial over its epochs",
        caption="Thick: the best trial of the recipe. A cross ends a trial that was pruned or failed, a square one "
        "that ran out of time; dashed: where the full phase begins.",
    )
    if not searched_keys(trials):
        return [curves]
    parallel = Chart(
        figure=plot_parallel(trials, objective=objective),
        alt="parallel coordinates of the searched values and the objective",
        caption="One line per trial, from what it tried to what it reached: the lighter, the better. A line passes "
        f"over what its recipe does not search. {too_few_trials(trials)}".rstrip(),
    )
    return [curves, parallel]


def _importance_charts(trials: Sequence[SearchTrial]) -> list[Chart]:
    found = importances(trials)
    if not found:
        return []
    caption = (
        "Spearman's rank correlation over the trials of a recipe, with 95% intervals: one that contains 0 shows no "
        "effect, and neither does a value that is best in the middle of its range (see its own figure). Pruned trials "
        "count with what they had reached."
    )
    alt = "rank correlation of each searched value with the objective"
    return [Chart(figure=plot_importances(found), alt=alt, caption=caption)]


def _interval_charts(models: Sequence[EvaluatedModel]) -> list[Chart]:
    return [
        Chart(
            figure=plots.plot_intervals(models, metric),
            alt=f"{METRICS[metric].title} of every model with its 95% interval",
        )
        for metric in main_metrics()
    ]


def _image_charts(models: Sequence[EvaluatedModel], context: Context) -> list[Chart]:
    """Accuracy on images, with the study's value for the same network where the two are comparable."""
    published, caption = study_accuracies(context)
    recipes = [model.training.values.get("recipe", model.recipe) for model in models]
    references = [published.get(recipe, math.nan) for recipe in recipes]
    figure = plots.plot_intervals(models, "accuracy", level="image", references=references)
    return [Chart(figure=figure, alt="accuracy on images of every model with its 95% interval", caption=caption)]


def _ranking_charts(models: Sequence[EvaluatedModel], best: EvaluatedModel | None) -> list[Chart]:
    return [
        Chart(
            figure=plots.plot_roc(models, best),
            alt="receiver operating curves",
            caption="In the legend: AUROC. The marker on each curve is the model’s own threshold.",
        ),
        Chart(
            figure=plots.plot_precision_recall(models, best),
            alt="precision over recall",
            caption="In the legend: average precision. Dotted: the share of abnormal studies.",
        ),
        Chart(
            figure=plots.plot_decision_curve(models, best),
            alt="decision curves",
            caption="Net benefit of using a model, for every trade-off between missed findings and false alarms.",
        ),
    ]


def operating_charts(best: EvaluatedModel, position: int) -> list[Chart]:
    """A model at its threshold: confusion, reliability, distribution of probabilities, risk over coverage.

    Args:
        best: an evaluated model.
        position: of its colour.
    """
    band = _uncertain_band(best.calibration)
    return [
        Chart(
            figure=plots.plot_confusion(best),
            alt="confusion matrix at the threshold",
            caption=f"{_threshold_caption(best.calibration)}; percentages are of each row.",
        ),
        Chart(
            figure=plots.plot_reliability(best),
            alt="reliability diagram",
            caption="Bins of equal size; bars are Wilson 95% intervals that treat studies as independent.",
        ),
        Chart(
            figure=plots.plot_distribution(best, uncertain=band),
            alt="histogram of calibrated probabilities",
            caption="Bars are stacked: normal below, abnormal above.",
        ),
        Chart(
            figure=plots.plot_risk_coverage(best, position=position, uncertain=band),
            alt="risk over coverage",
            caption=_risk_caption(best, band),
        ),
    ]


def _uncertain_band(calibration: Calibration | None) -> plots.Band | None:
    if calibration is None or calibration.uncertain_low is None or calibration.uncertain_high is None:
        return None
    return calibration.uncertain_low, calibration.uncertain_high


def _threshold_caption(calibration: Calibration | None) -> str:
    if calibration is None or calibration.reason:
        return "Studies at 0.5: no threshold could be fitted"
    return f"Studies at the threshold that was fitted on validation studies (rule {calibration.rule})"


def _risk_caption(best: EvaluatedModel, band: plots.Band | None) -> str:
    meaning = "Error rate when the studies nearest to the threshold are left to a person."
    if band is None:
        return f"{meaning} No uncertain band was fitted: {_no_band(best.calibration)}."
    studies = best.studies()
    inside, wrong = studies["calibrated"].between(*band), studies["called"] != (studies["label"] == 1)
    rest = f"of the rest, {wrong[~inside].mean():.0%} are wrong" if not inside.all() else "no study is left"
    ends = f"{number(band[0])} to {number(band[1])}"
    return (
        f"{meaning} The uncertain band, {ends}, contains {inside.mean():.0%} of the test studies; {rest}, of all "
        f"{wrong.mean():.0%}."
    )


def _no_band(calibration: Calibration | None) -> str:
    if calibration is not None and calibration.method == "temperature":  # an earlier version chose it by error rates
        return (
            f"the validation set has fewer than {MIN_STUDIES} studies, or no band of at most 30% of them lowers its "
            "error rate by 25%"
        )
    return f"the validation set has fewer than {MIN_STUDIES} studies, or equal scores for more than {BAND_SHARE:.0%}"
