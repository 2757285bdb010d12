"""Figures over folds: every patient is tested once, by the model that was trained without their fold.

The studies of all folds are evaluated together, with intervals over all patients: each with its probability as its own
model calibrated it, and as called at its own model's threshold. An AUROC over folds therefore also compares studies
that different models have ranked; the mean of the folds' own values stands beside it. Neither covers how much another
draw of training patients would change the models. S: studies of all folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from muralab.errors import DataError, numbered
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.intervals import ClusteredSample, Interval, Resampled, metric_interval, resample
from muralab.evaluation.metrics import METRICS, main_metrics

SIZES = ("studies", "patients", "abnormal")
STUDY_COLUMNS = ["fold", "study", "patient", "part", "label", "probability", "called"]


def pool_studies(models: Sequence[EvaluatedModel]) -> pd.DataFrame:
    """The test studies of all folds: one row each, [S].

    Args:
        models: one per fold, in the order of the folds.

    Returns:
        `STUDY_COLUMNS`: fold (from 1), the calibrated probability, and whether it is called abnormal.

    Raises:
        DataError: a fold's predictions cannot be evaluated, or two folds have a patient in common.
    """
    tables = []
    for fold, model in enumerate(models, start=1):
        studies = model.studies()
        tables.append(studies.assign(fold=fold, probability=studies["calibrated"])[STUDY_COLUMNS])
    pooled = pd.concat(tables, ignore_index=True)
    folds = pooled.groupby("patient")["fold"].nunique()
    if (folds > 1).any():
        names = [str(name) for name in folds.index[folds > 1]]
        raise DataError(numbered(f"{len(names)} patients are in several test folds:", names))
    return pooled


def resample_folds(studies: pd.DataFrame) -> dict[str, Resampled]:
    """Metric -> its resampled values over the studies of all folds.

    Args:
        studies: from `pool_studies`.
    """
    called = studies.assign(probability=studies["called"].astype(np.float64))
    by_calls, by_probability = (
        resample(
            ClusteredSample(rows, threshold=0.5), [name for name in METRICS if METRICS[name].uses_threshold == calls]
        )
        for rows, calls in ((called, True), (studies, False))
    )
    return {name: by_calls if METRICS[name].uses_threshold else by_probability for name in METRICS}


def intervals_over_folds(studies: pd.DataFrame) -> dict[str, Interval]:
    """Every registered metric over the studies of all folds, with its interval over patients."""
    return {name: metric_interval(resampled, name) for name, resampled in resample_folds(studies).items()}


def fold_table(models: Sequence[EvaluatedModel], pooled: Mapping[str, Interval]) -> pd.DataFrame:
    """One row per fold, one for all folds (`all`), and one with the mean of the folds' values (`mean`).

    Columns: fold, run_id, studies, patients, abnormal, threshold, and each main metric with its bounds.
    """
    rows: list[dict[str, object]] = []
    for fold, model in enumerate(models, start=1):
        studies = model.studies()
        rows.append({"fold": str(fold), "run_id": model.run_id, **_sizes(studies), "threshold": model.threshold})
        rows[-1] |= _metric_columns(model.intervals())
    everything = pd.concat([model.studies() for model in models])
    rows.append({"fold": "all", "run_id": "", **_sizes(everything), "threshold": np.nan, **_metric_columns(pooled)})
    table = pd.DataFrame(rows).astype(dict.fromkeys(SIZES, "Int64"))  # the mean has none
    mean = {name: table.loc[: len(models) - 1, name].mean() for name in main_metrics()}
    return pd.concat([table, pd.DataFrame([{"fold": "mean", "run_id": "", **mean}])], ignore_index=True)


def fold_metrics(table: pd.DataFrame, pooled: Mapping[str, Interval]) -> dict[str, float]:
    """The figures over folds as a run logs them: metrics of all folds together, and means over folds."""
    mean = table.loc[table["fold"] == "mean"].iloc[0]
    found = {f"folds_study_{name}": interval.estimate for name, interval in pooled.items()}
    for name in main_metrics():
        found |= {f"folds_study_{name}_low": pooled[name].low, f"folds_study_{name}_high": pooled[name].high}
        found[f"folds_mean_study_{name}"] = float(mean[name])
    return found


def fold_lines(recipe: str, table: pd.DataFrame, pooled: Mapping[str, Interval]) -> list[str]:
    """What is printed: the main figures over all folds, and those of each fold."""
    whole = table.loc[table["fold"] == "all"].iloc[0]
    folds = table[~table["fold"].isin(("all", "mean"))]
    figures = ", ".join(f"{name} {pooled[name]}" for name in main_metrics())
    lines = [
        f"{recipe}, {len(folds)} folds: {whole['studies']} studies of {whole['patients']} patients, each tested once "
        f"by a model trained without them, study level: {figures}"
    ]
    for name in main_metrics():
        each = ", ".join(f"{value:.3f}" for value in folds[name])
        lines.append(f"  {name} of each fold: {each}; mean {folds[name].mean():.3f}")
    return lines


def _sizes(studies: pd.DataFrame) -> dict[str, int]:
    sizes = (len(studies), int(studies["patient"].nunique()), int(studies["label"].sum()))
    return dict(zip(SIZES, sizes, strict=True))


def _metric_columns(intervals: Mapping[str, Interval]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name in main_metrics():
        found = intervals[name]
        columns |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
    return columns
