"""Figures over folds: every patient is tested once, by the model that was trained without their fold.

The studies of all folds are evaluated together (`PooledModel`), with intervals over all patients; the mean of the
folds' own values stands beside it. Neither covers how much another draw of training patients would change the models.
S: studies of all folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.intervals import Interval
from muralab.evaluation.metrics import main_metrics
from muralab.evaluation.pooled_model import PooledModel

SIZES = ("studies", "patients", "abnormal")
STUDY_COLUMNS = ["fold", "study", "patient", "part", "label", "probability", "called"]


def pooled_studies(model: PooledModel) -> pd.DataFrame:
    """The test studies of all folds with their fold (from 1), calibrated probability and call: `STUDY_COLUMNS`, [S]."""
    studies = model.studies()
    return studies.assign(probability=studies["calibrated"])[STUDY_COLUMNS]


def count_folds(tests: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The sizes of all folds together, in the form of `Dataset.counts`.

    Args:
        tests: rows of the test set of each fold: image, study, patient, label.
    """
    images = pd.concat(tests)
    sizes = {"studies": images["study"].nunique(), "patients": images["patient"].nunique(), "images": len(images)}
    return pd.DataFrame([{"set": f"test of {len(tests)} folds", **sizes, "abnormal": int(images["label"].sum())}])


def fold_table(model: PooledModel) -> pd.DataFrame:
    """One row per fold, one for all folds (`all`), and one with the mean of the folds' values (`mean`).

    Columns: fold, run_id, studies, patients, abnormal, threshold, and each main metric with its bounds.
    """
    rows: list[dict[str, object]] = []
    for number, fold in enumerate(model.folds, start=1):
        rows.append({"fold": str(number), "run_id": fold.run_id, **_sizes(fold), "threshold": fold.threshold})
        rows[-1] |= _metric_columns(fold.intervals())
    rows.append({"fold": "all", "run_id": "", **_sizes(model), "threshold": np.nan})
    rows[-1] |= _metric_columns(model.intervals())
    table = pd.DataFrame(rows).astype(dict.fromkeys(SIZES, "Int64"))  # the mean has none
    mean = {name: table.loc[: len(model.folds) - 1, name].mean() for name in main_metrics()}
    return pd.concat([table, pd.DataFrame([{"fold": "mean", "run_id": "", **mean}])], ignore_index=True)


def fold_metrics(model: PooledModel, table: pd.DataFrame) -> dict[str, float]:
    """The figures over folds as a run logs them: metrics of all folds together, and means over folds."""
    mean, pooled = table.loc[table["fold"] == "mean"].iloc[0], model.intervals()
    found = {f"folds_study_{name}": interval.estimate for name, interval in pooled.items()}
    for name in main_metrics():
        found |= {f"folds_study_{name}_low": pooled[name].low, f"folds_study_{name}_high": pooled[name].high}
        found[f"folds_mean_study_{name}"] = float(mean[name])
    return found


def fold_lines(model: PooledModel, table: pd.DataFrame) -> list[str]:
    """What is printed: the main figures over all folds, and those of each fold."""
    whole = table.loc[table["fold"] == "all"].iloc[0]
    folds = table[~table["fold"].isin(("all", "mean"))]
    figures = ", ".join(f"{name} {model.intervals()[name]}" for name in main_metrics())
    lines = [
        f"{model.recipe}, {len(folds)} folds: {whole['studies']} studies of {whole['patients']} patients, each tested "
        f"once by a model trained without them, study level: {figures}"
    ]
    for name in main_metrics():
        each = ", ".join(f"{value:.3f}" for value in folds[name])
        lines.append(f"  {name} of each fold: {each}; mean {folds[name].mean():.3f}")
    return lines


def _sizes(model: EvaluatedModel) -> dict[str, int]:
    studies = model.studies()
    sizes = (len(studies), int(studies["patient"].nunique()), int(studies["label"].sum()))
    return dict(zip(SIZES, sizes, strict=True))


def _metric_columns(intervals: Mapping[str, Interval]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name in main_metrics():
        found = intervals[name]
        columns |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
    return columns
