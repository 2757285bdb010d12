"""The results in sentences that can be quoted: the headline, and which model is better than which."""

from __future__ import annotations

import math
from collections.abc import Sequence

from muralab.errors import DataError
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import MIXED_PHASES, NOT_TESTED, EvaluatedModel, best_of, paired_difference
from muralab.evaluation.intervals import CONFIDENCE, Interval
from muralab.evaluation.operating_point import BAND_SHARE
from muralab.wording import once

MAX_DIGITS = 6
NOT_COMPARED = "not compared"
ABOUT_INTERVALS = (
    "Intervals are 95%, over patients: score intervals and Student’s t, which also hold with few patients "
    "(docs/evaluation.md). Reports and model cards from before 27 November 2026 show BCa intervals of the bootstrap."
)
NOT_SELECTED = "not selected on validation: no validation score is known"


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number with a true minus sign, and more digits where it would round to 0; an en dash for NaN."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return f"{0:.{digits}f}"
    while digits < MAX_DIGITS and abs(value) < 0.5 * 10**-digits:
        digits += 1
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def bounds(interval: Interval, *, signed: bool = False) -> str:
    """`[0.801, 0.899]`, or nothing where there is no interval."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"[{number(interval.low, signed=signed)}, {number(interval.high, signed=signed)}]"


def with_bounds(interval: Interval, *, signed: bool = False) -> str:
    """`0.853 [0.801, 0.899]`; with a reason where the value or its interval is missing."""
    if math.isnan(interval.estimate):
        return f"– ({interval.reason or 'undefined'})"
    shown = bounds(interval, signed=signed) or f"(no interval: {interval.reason or 'unknown'})"
    return f"{number(interval.estimate, signed=signed)} {shown}"


def describe_test_set(model: EvaluatedModel) -> str:
    """`412 studies of 230 patients`.

    Raises:
        DataError: the model was not evaluated on the test set.
    """
    studies = model.studies()
    return f"{len(studies)} studies of {studies['patient'].nunique()} patients"


def headline(model: EvaluatedModel) -> str:
    """One sentence: the model, its test AUROC and kappa with intervals, and the size of the test set."""
    problem = model.problem()
    if problem is not None:
        return f"{model.title} has no test results: {problem.rstrip('.')}."
    auroc, kappa = (model.intervals()[name] for name in ("auroc", "kappa"))
    text = (
        f"{model.title} reaches a study-level test AUROC of {with_bounds(auroc)} and a kappa of "
        f"{with_bounds(kappa)} at its threshold of {number(model.threshold)} "
        f"({describe_test_set(model)}; 95% patient-clustered intervals)."
    )
    return once(text, set())


def calibration_sentence(model: EvaluatedModel) -> str:
    """How a model's probabilities and threshold were calibrated, and what they hold for."""
    fitted = model.calibration
    if model.is_pooled:
        return f"{model.title}: every fold has its own calibration and threshold, fitted on its validation studies."
    if fitted is None:
        return f"{model.title}: uncalibrated, at 0.5: no calibration was fitted."
    if fitted.reason:
        return f"{model.title}: uncalibrated, at 0.5: nothing could be fitted ({fitted.reason})."
    text = f"{model.title}: {_scaling_clause(fitted)}; {_threshold_clause(fitted)}; {_band_clause(fitted)}."
    if fitted.site_prevalence is not None:
        text += f" Everything was shifted to a share of {fitted.site_prevalence:.1%} abnormal studies (prevalence)."
    return text


def _scaling_clause(fitted: Calibration) -> str:
    image, study = fitted.scaling("image"), fitted.scaling("study")
    if fitted.method == "temperature":
        return (
            f"calibrated in an earlier version by a temperature alone (images {number(image.temperature)}, studies "
            f"{number(study.temperature)}), which cannot undo class weights: with them, probabilities are too high "
            "where fewer than half of the studies are abnormal"
        )
    slopes = f"images {number(1 / image.temperature)} and {number(image.intercept)}"
    slopes += f", studies {number(1 / study.temperature)} and {number(study.intercept)}"
    size = "" if fitted.n_studies is None else f"{fitted.n_studies} "
    share = "" if fitted.prevalence is None else f", of which {fitted.prevalence:.1%} are abnormal"
    return f"calibrated by slope and intercept of the log-odds ({slopes}) on {size}validation studies{share}"


def _threshold_clause(fitted: Calibration) -> str:
    text = f"threshold {number(fitted.threshold)} by the rule {fitted.rule}"
    if fitted.sensitivity_bound is not None:
        bound = number(fitted.sensitivity_bound)
        return f"{text} (lower 95% confidence bound of the sensitivity on new patients: {bound})"
    if ">=" in fitted.rule:
        return f"{text}, which an earlier version met on the validation studies only, without a confidence bound"
    if fitted.threshold_weight is None:
        return f"{text}, which an earlier version fitted to the labels of the validation studies alone"
    share = f"{fitted.threshold_weight:.0%}"
    return f"{text} (fitted to a mixture: {share} their labels, the rest the calibrated probabilities)"


def _band_clause(fitted: Calibration) -> str:
    if fitted.uncertain_low is None or fitted.uncertain_high is None:
        return 'no answer is "uncertain"'
    what = (
        "chosen in an earlier version by the error rate of validation studies"
        if fitted.method == "temperature"
        else f"the {BAND_SHARE:.0%} of studies nearest to the threshold"
    )
    return f'"uncertain" between {number(fitted.uncertain_low)} and {number(fitted.uncertain_high)}, {what}'


def calibration_notes(models: Sequence[EvaluatedModel]) -> list[str]:
    """What makes the models' calibrations doubtful, each warning once with the models that it is about."""
    titles: dict[str, list[str]] = {}
    for model in models:
        for warning in () if model.calibration is None else model.calibration.warnings:
            titles.setdefault(warning, []).append(model.title)
    everyone = "Both models" if len(models) == 2 else f"All {len(models)} models"
    return [
        f"{everyone if len(found) == len(models) > 1 else ', '.join(found)}: {warning}"
        for warning, found in titles.items()
    ]


def kept_weights(model: EvaluatedModel, objective: str) -> str:
    """Which phase's weights were tested, and what each phase reached on validation.

    Args:
        model: a trained model.
        objective: name of the metric that selects.
    """
    training, kept = model.training, model.training.tested_phase
    if training.kept_phase == MIXED_PHASES:
        return "The weights of each network are those of the best epoch of the phase in which it validated better."
    reached = {phase: training.summary.get(f"{phase}_{objective}", math.nan) for phase in ("upper", "full")}
    why = {
        "best": "the phase that validated better",
        "full": "kept_phase=full takes the full phase",
        "": "the version that logged this run always took the full phase",
    }[training.values.get("kept_phase", "") if training.kept_phase else ""]
    figures = ", ".join(f"{phase} {number(value)}" for phase, value in reached.items() if not math.isnan(value))
    compared = f" ({why}; {objective}: {figures})" if figures else ""
    return f"The weights are those of the best epoch of the {kept} phase{compared}."


def selection(models: Sequence[EvaluatedModel], *, comparison: bool = False) -> str:
    """How the model at the top of the page was selected."""
    if models and all(model.is_pooled for model in models):
        return "Every patient tested once, by a model that was trained without them"
    if comparison:
        return "Compared over seeds, evaluated on test"
    best = best_of(models)
    if models and (best is None or math.isnan(best.selection_score)):
        return f"Evaluated on test; {NOT_SELECTED}"
    return "Selected on validation, evaluated on test"


def unscored(models: Sequence[EvaluatedModel]) -> str:
    """Which models have no validation score, so that they took no part in the selection; empty for all or none."""
    names = [model.title for model in models if math.isnan(model.selection_score)]
    if not names or len(names) == len(models):
        return ""
    return f"{', '.join(names)}: {NOT_SELECTED}."


def difference_sentences(models: Sequence[EvaluatedModel]) -> list[str]:
    """One sentence per model: how much lower or higher than the best one, paired on the same test patients.

    The best model is the one that validation selected, or the first where it selected none. A difference whose
    interval contains 0 is called not resolved. Where there are several, a last sentence counts them.
    """
    if not models:
        return []
    best = best_of(models) or models[0]
    sentences = [difference_sentence(model, best) for model in models if model is not best]
    n_compared = sum(NOT_COMPARED not in sentence for sentence in sentences)
    return sentences if n_compared < 2 else [*sentences, several_comparisons(n_compared)]


def several_comparisons(n: int) -> str:
    """How often several unadjusted comparisons find a difference by chance, as one sentence."""
    return (
        f"These {n} comparisons are not adjusted for their number: if no model differed from the best one, at least "
        f"one interval would exclude 0 in up to {100 * (1 - CONFIDENCE**n):.0f}% of such reports."
    )


def difference_sentence(model: EvaluatedModel, best: EvaluatedModel) -> str:
    """The paired difference of two models in test AUROC on studies, as one sentence."""
    pair = f"{model.title} against {best.title}"
    for one in (model, best):
        if one.test is None:
            return f"{pair}: {NOT_COMPARED} ({one.title}: {NOT_TESTED})."
    try:
        difference = paired_difference(model, best)
    except DataError as error:
        return f"{pair}: {NOT_COMPARED} ({error})."
    if not (math.isfinite(difference.low) and math.isfinite(difference.high)):
        return f"{pair}: {NOT_COMPARED} ({difference.reason or 'the difference is undefined'})."
    shown = f"paired difference {with_bounds(difference, signed=True)} in test AUROC on studies"
    if difference.low <= 0 <= difference.high:
        return f"{pair}: {shown}: not resolved, the interval contains 0."
    return f"{pair}: {shown}: {'lower' if difference.high < 0 else 'higher'}, the interval excludes 0."
