"""The results as data: one row per recipe and phase; every column names its level and set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from muralab.evaluation.evaluated_model import MIXED_PHASES, EvaluatedModel, SetName
from muralab.evaluation.metrics import main_metrics

PHASES = ("upper", "full")
MEASURES = ("loss", "accuracy")
EVALUATED_SETS: tuple[SetName, SetName] = ("validation", "test")


def results_table(models: Sequence[EvaluatedModel]) -> pd.DataFrame:
    """The study's table and the study-level metrics, as written to results.csv.

    Losses (without class weights) and accuracies (at 0.5) are at image level, AUROC, kappa and registered metrics at
    study level with patient-clustered 95% intervals; kappa is at the threshold fitted on validation studies. Only the
    row of the phase whose weights were kept has test values; a missing value is NaN, and `note` gives the reason.
    Values of the training images are measured like the others where `train_mode` is `evaluation`, or else while
    training: on augmented images, with dropout, averaged over an epoch.

    Args:
        models: usually one per recipe.
    """
    return pd.DataFrame([_row(model, phase) for model in models for phase in phases_of(model)])


def phases_of(model: EvaluatedModel) -> tuple[str, ...]:
    """The rows of a model in the study's table.

    A network from scratch has only a row of the full phase, unless the weights of its warm-up were kept; so have the
    models of several folds together.
    """
    only_full = model.is_pooled or (model.training.from_scratch and model.training.tested_phase == "full")
    return PHASES[1:] if only_full else PHASES


def not_tested(model: EvaluatedModel) -> str:
    """Why one of a model's phases has no test values."""
    if model.training.kept_phase == MIXED_PHASES:
        return "the test set is evaluated once, with the kept weights: each network's, of one phase or the other"
    return f"the test set is evaluated once, with the kept weights: those of the {model.training.tested_phase} phase"


def _row(model: EvaluatedModel, phase: str) -> dict[str, object]:
    summary, kept = model.training.summary, phase == model.training.tested_phase
    row: dict[str, object] = {"recipe": model.label, "phase": phase, "run_id": model.run_id}
    for measure in MEASURES:
        row[f"train_image_{measure}"], evaluated = model.training.train_value(phase, measure)
        row["train_mode"] = "evaluation" if evaluated else "training"
        row[f"validation_image_{measure}"] = summary.get(f"{phase}_val_{measure}", math.nan)
        row[f"test_image_{measure}"] = summary.get(f"test_{measure}", math.nan) if kept else math.nan
    for set_name in EVALUATED_SETS:
        for metric in main_metrics():
            row |= _metric_columns(model, phase, set_name, metric)
    studies = model.studies() if kept and model.problem() is None else None
    row["threshold"] = model.threshold if kept else math.nan
    row["test_studies"] = 0 if studies is None else len(studies)
    row["test_patients"] = 0 if studies is None else int(studies["patient"].nunique())
    row["note"] = _note(model) if kept else not_tested(model)
    return row


def _metric_columns(model: EvaluatedModel, phase: str, set_name: SetName, metric: str) -> dict[str, float]:
    interval = model.intervals(set_name).get(metric) if phase == model.training.tested_phase else None
    name = f"{set_name}_study_{metric}"
    if interval is not None:
        return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    logged = model.training.summary.get(f"{phase}_val_study_{metric}", math.nan)
    return {name: logged if set_name == "validation" else math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}


def _note(model: EvaluatedModel) -> str:
    found = {name: model.intervals().get(name) for name in main_metrics()}
    reasons = [f"{name}: {interval.reason}" for name, interval in found.items() if interval and interval.reason]
    problem = model.problem()
    return "; ".join(reasons if problem is None else [problem, *reasons])
