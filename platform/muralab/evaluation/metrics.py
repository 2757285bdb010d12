"""METRICS: every metric that a model is evaluated by, at image or study level.

Built-in metrics are computed from weighted sums (`weighted_sums.py`), for one set of rows or thousands of resamples at
once, and equal scikit-learn's to 1e-12. Any other `f(labels, probabilities) -> float` is added by one
`register_metric(...)` line. An undefined metric is NaN, and `undefined_reason` says why. Shapes: N rows (images or
studies), R resamples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from muralab.errors import SettingsError, nearest
from muralab.evaluation.predictions import UNCALIBRATED, Level, level_rows
from muralab.evaluation.weighted_sums import Floats, Ints, SortedScores, Sums, checked_arrays
from muralab.serving.scaling import Scaling

Needs = Literal["rows", "abnormal", "normal", "both"]
Method = Literal["share", "shares", "auroc", "loss", "jackknife", "bootstrap"]
"""How an interval is found (`patient_intervals.py`): as that of a share of rows, from those of sensitivity, specificity
and prevalence, as that of the AUROC, from the mean losses of both classes, with the jackknife, or by resampling."""
PlainMetric = Callable[[Ints, Floats], float]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric; call it with labels [N] and probabilities [N]."""

    title: str
    """Its name in tables and on the axes of figures."""
    of: Callable[[Sums], Floats]
    """Its value under R sets of weights, [R]; meaningless where `needs` is not met."""
    needs: Needs
    """The rows without which it is undefined."""
    higher_is_better: bool = True
    """False for losses."""
    uses_threshold: bool = False
    """Whether it depends on the operating point."""
    chance: float | None = None
    """Its value for a model that guesses, where that is one number."""
    limits: tuple[float, float] = (-math.inf, math.inf)
    """The lowest and the highest value that is possible; no bound of an interval lies beyond them."""
    no_interval: str | None = None
    """Why it gets no interval; None where it gets one."""
    method: Method = "bootstrap"
    """How its interval is found."""
    main: bool = False
    """Whether results.csv, comparisons and run metrics include its interval; the report and the card show every one."""
    by_subgroup: bool = False
    """Whether the report shows it for each part and number of views."""

    def __call__(self, labels: ArrayLike, probabilities: ArrayLike, *, threshold: float = 0.5) -> float:
        """The metric of N labels and probabilities; NaN where it is undefined."""
        return float(self.values(SortedScores(labels, probabilities, threshold=threshold).unweighted())[0])

    def values(self, sums: Sums) -> Floats:
        """The metric of each resample, [R]; NaN where it is undefined."""
        defined = _DEFINED[self.needs](sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(defined, self.of(sums), np.nan)


_DEFINED: dict[Needs, Callable[[Sums], np.ndarray]] = {
    "rows": lambda s: s.total > 0,
    "abnormal": lambda s: s.positives > 0,
    "normal": lambda s: s.negatives > 0,
    "both": lambda s: (s.positives > 0) & (s.negatives > 0),
}


def _auroc(s: Sums) -> Floats:
    return s.correct_pairs / (s.positives * s.negatives)


def _average_precision(s: Sums) -> Floats:
    abnormal, normal, found = s.ranking
    called = found + np.cumsum(normal, axis=1)
    precision = found / np.maximum(called, 1)  # before the first weighted row the precision is 0 / 0
    return np.asarray(np.einsum("rg,rg->r", abnormal, precision) / s.positives)


def _accuracy(s: Sums) -> Floats:
    tn, _, _, tp = s.confusion
    return (tn + tp) / s.total


def _sensitivity(s: Sums) -> Floats:
    return s.confusion[3] / s.positives


def _specificity(s: Sums) -> Floats:
    return s.confusion[0] / s.negatives


def _balanced_accuracy(s: Sums) -> Floats:
    return (_sensitivity(s) + _specificity(s)) / 2


def _f1(s: Sums) -> Floats:
    _, fp, fn, tp = s.confusion
    return 2 * tp / (2 * tp + fp + fn)


def _kappa(s: Sums) -> Floats:
    tn, fp, fn, tp = s.confusion
    by_chance = (tn + fn) * (tn + fp) + (fp + tp) * (fn + tp)
    total = s.total
    return (total * (tn + tp) - by_chance) / (total**2 - by_chance)


def _ece(s: Sums) -> Floats:
    return np.asarray(np.abs(s.bin_gaps).sum(axis=1) / s.total)


SHARE = (0.0, 1.0)

# In the order of the tables.
METRICS: dict[str, Metric] = {
    "auroc": Metric(
        title="AUROC",
        of=_auroc,
        needs="both",
        method="auroc",
        chance=0.5,
        limits=SHARE,
        main=True,
        by_subgroup=True,
    ),
    "kappa": Metric(
        title="Cohen's kappa",
        of=_kappa,
        needs="both",
        method="shares",
        uses_threshold=True,
        chance=0.0,
        limits=(-1.0, 1.0),
        main=True,
        by_subgroup=True,
    ),
    "sensitivity": Metric(
        title="Sensitivity",
        of=_sensitivity,
        needs="abnormal",
        method="share",
        limits=SHARE,
        uses_threshold=True,
        by_subgroup=True,
    ),
    "specificity": Metric(
        title="Specificity",
        of=_specificity,
        needs="normal",
        method="share",
        limits=SHARE,
        uses_threshold=True,
        by_subgroup=True,
    ),
    "balanced_accuracy": Metric(
        title="Balanced accuracy",
        of=_balanced_accuracy,
        needs="both",
        method="shares",
        limits=SHARE,
        uses_threshold=True,
        chance=0.5,
    ),
    "accuracy": Metric(title="Accuracy", of=_accuracy, needs="rows", method="share", limits=SHARE, uses_threshold=True),
    "f1": Metric(title="F1", of=_f1, needs="abnormal", method="shares", limits=SHARE, uses_threshold=True),
    "average_precision": Metric(
        title="Average precision", of=_average_precision, needs="both", method="jackknife", limits=SHARE
    ),
    "brier": Metric(
        title="Brier score",
        of=lambda s: s.squared_error / s.total,
        needs="rows",
        method="loss",
        limits=SHARE,
        higher_is_better=False,
    ),
    "log_loss": Metric(
        title="Log loss",
        of=lambda s: s.log_loss / s.total,
        needs="rows",
        method="loss",
        limits=(0.0, math.inf),
        higher_is_better=False,
    ),
    # The noise of its bins never cancels, neither in the sample nor in a resample: in a simulation of 250 patients,
    # 95% percentile intervals contained the true value in 4% of the sets, BCa ones in 57%, shifted ones in 87%.
    "ece": Metric(
        title="Expected calibration error",
        of=_ece,
        needs="rows",
        higher_is_better=False,
        no_interval="sampling biases it upward, and resampling does so twice: see the Brier score and log loss",
    ),
}


def register_metric(
    name: str,
    *,
    title: str,
    f: PlainMetric,
    needs: Needs = "both",
    higher_is_better: bool = True,
    chance: float | None = None,
) -> None:
    """Add a metric that is then computed, bounded, reported and logged like the built-in ones.

    Its interval comes from resampling, which calls `f` about 2,250 times for each model, set and level; a built-in
    metric is computed from weighted sums, and its interval from those of single patients. Trials run in processes
    of their own, so register at import time: at the end of this file.

    Args:
        name: its key in results.csv and in MLflow (`test_study_<name>`).
        title: its name in tables.
        f: maps labels (0 or 1, int64 [N]) and probabilities (float64 [N]) to a number.
        needs: the rows without which it is undefined; `f` is not called without them.
        higher_is_better: False for losses.
        chance: its value for a model that guesses, where that is one number.

    Raises:
        SettingsError: the name is already used or not of the form `my_metric`.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SettingsError(f"The metric name '{name}' must match [a-z][a-z0-9_]*, such as my_metric.")
    if name in METRICS:
        raise SettingsError(f"The metric '{name}' is already registered; choose another name.")

    METRICS[name] = Metric(
        title=title,
        of=lambda sums: _loop(name, f, sums, _DEFINED[needs](sums)),
        needs=needs,
        higher_is_better=higher_is_better,
        chance=chance,
        main=True,
        by_subgroup=True,
    )


def _loop(name: str, f: PlainMetric, sums: Sums, defined: np.ndarray) -> Floats:
    """A plain metric of each resample in which it is defined, [R]."""
    try:
        return np.array([float(f(*sums.rows(r))) if ok else np.nan for r, ok in enumerate(defined)])
    except Exception as error:
        raise SettingsError(
            f"The registered metric '{name}' raised {type(error).__name__}: {error}. It must return a number for any "
            "labels [N] and probabilities [N] that contain the classes named by `needs`; NaN where it is undefined."
        ) from error


def main_metrics() -> list[str]:
    """Names of the metrics in results.csv, in comparisons and, with their intervals, in run metrics."""
    return [name for name, metric in METRICS.items() if metric.main]


def check_metrics(names: Iterable[str]) -> list[str]:
    """The names as a list.

    Raises:
        SettingsError: a name is not a metric; suggests the nearest.
    """
    listed = list(names)
    for name in listed:
        if name not in METRICS:
            raise SettingsError(f"Unknown metric '{name}'. {nearest(name, METRICS)}")
    return listed


def evaluate(
    labels: ArrayLike, probabilities: ArrayLike, *, threshold: float = 0.5, names: Sequence[str] | None = None
) -> dict[str, float]:
    """Metrics of N labels and probabilities, by name; NaN where one is undefined.

    Args:
        labels: 0 or 1, shape [N].
        probabilities: in [0, 1], shape [N].
        threshold: a probability at or above it is called abnormal.
        names: which metrics; all by default.

    Raises:
        DataError: a label or probability is missing or out of range.
        SettingsError: a name is not a metric.
    """
    sums = SortedScores(labels, probabilities, threshold=threshold).unweighted()
    chosen = check_metrics(METRICS if names is None else names)
    return {name: float(METRICS[name].values(sums)[0]) for name in chosen}


def undefined_reason(name: str, labels: ArrayLike, probabilities: ArrayLike) -> str | None:
    """Why a metric is NaN for these rows, or None where it is defined.

    Raises:
        DataError, SettingsError: as `evaluate`.
    """
    check_metrics([name])
    y, _ = checked_arrays(labels, probabilities)
    if not len(y):
        return "there are no rows"
    needs, only = METRICS[name].needs, _only_class(int(y.sum()), len(y))
    if needs == "rows" or only is None or needs == only:
        return None
    missing = "normal" if only == "abnormal" else "abnormal"
    return f"all {len(y)} rows are {only}: {name} needs {missing} ones"


def _only_class(n_abnormal: int, n_rows: int) -> Needs | None:
    if n_abnormal == n_rows:
        return "abnormal"
    return "normal" if n_abnormal == 0 else None


def evaluate_predictions(
    predictions: pd.DataFrame, *, level: Level, threshold: float = 0.5, scaling: Scaling = UNCALIBRATED
) -> dict[str, float]:
    """All metrics of a predictions table at one level.

    Args:
        predictions: the columns of `PREDICTION_COLUMNS`.
        level: "image" or "study".
        threshold: on the calibrated probability of that level.
        scaling: of the logits of that level.

    Raises:
        DataError: the table cannot be evaluated (see `check_predictions`).
    """
    rows = level_rows(predictions, level=level, scaling=scaling)
    return evaluate(rows["label"], rows["probability"], threshold=threshold)
