"""Paired differences of two models that were evaluated on the same patients, with their intervals.

Shapes: P patients, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from muralab.errors import DataError, numbered
from muralab.evaluation.interval_formulas import (
    Bounds,
    jackknife_variance,
    normal_quantile,
    student_quantile,
    welch_df,
)
from muralab.evaluation.intervals import (
    CONFIDENCE,
    ClusteredSample,
    Interval,
    Resampled,
    check_confidence,
    metric_interval,
    no_interval_reason,
)
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.patient_sums import ABNORMAL, NORMAL
from muralab.evaluation.weighted_sums import Floats

UNSEEN_PATIENTS = 0.5
"""Patients not in the sample, on whom the two predictions differ as if they were independent."""


def check_same_images(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Refuse two predictions tables that cannot be compared row by row.

    Raises:
        DataError: the two differ in images, labels, studies or patients.
    """
    only = sorted(set(a["image"]) ^ set(b["image"]))
    if only:
        raise DataError(
            numbered(
                f"The two models were evaluated on different images: {len(only)} have a prediction of one model only. "
                "Evaluate both on the same test set:",
                [str(image) for image in only],
            )
        )
    one, other = (table.set_index("image").sort_index() for table in (a, b))
    for column in ("label", "study", "patient"):
        differing = one.index[(one[column].to_numpy() != other[column].to_numpy())]
        if len(differing):
            raise DataError(
                numbered(f"The two models disagree on the {column} of {len(differing)} images:", [*differing])
            )


def difference_interval(a: Resampled, b: Resampled, metric: str, *, confidence: float = CONFIDENCE) -> Interval:
    """How much a metric of `a` exceeds that of `b` on the same patients, as a - b: jackknife and Student's t.

    Each patient is left out of both models at once, so that the difficulty of a patient cancels out.

    Args:
        a: metrics of one model.
        b: those of the other, of the same rows (see `check_same_images`).
        metric: a name in `METRICS`.
        confidence: of the interval.

    Raises:
        SettingsError: the confidence is not in [0.5, 1).
    """
    check_confidence(confidence)
    sample, patients = a.sample, a.sample.by_patient
    estimate, reason = sample.estimate(metric) - b.sample.estimate(metric), no_interval_reason(metric, sample)
    if reason is not None:
        return Interval(estimate=estimate, low=np.nan, high=np.nan, level=confidence, reason=reason)
    without = a.without[metric] - b.without[metric]
    if patients.equals(b.sample.by_patient) and np.allclose(without, 0, atol=1e-12, equal_nan=True):
        return Interval(estimate=0.0, low=0.0, high=0.0, level=confidence, reason="both make the same predictions")
    variance = jackknife_variance(without) + unseen_variance(a, b, metric)
    if not variance > 0:
        reason = "the two models do not differ on any patient, and the spread of this metric is not known"
        return Interval(estimate=estimate, low=np.nan, high=np.nan, level=confidence, reason=reason)
    half = student_quantile(confidence, _difference_df(sample, metric, without)) * np.sqrt(variance)
    smallest, largest = METRICS[metric].limits
    low, high = max(estimate - half, smallest - largest), min(estimate + half, largest - smallest)
    return Interval(estimate=estimate, low=float(low), high=float(high), level=confidence)


def unseen_variance(a: Resampled, b: Resampled, metric: str) -> float:
    """Variance of a difference that is not visible where two models differ on few patients of the sample, or none.

    As if both models predicted another half patient independently: that share of the variances of both models, which
    are read from their own intervals. It matters with few patients only.
    """
    if a.sample.by_patient.equals(b.sample.by_patient):
        return 0.0
    squares = []
    for one in (a, b):
        interval = metric_interval(one, metric)
        squares.append(((interval.high - interval.low) / (2 * normal_quantile(interval.level))) ** 2)
    share = UNSEEN_PATIENTS / (_rarer_class(a.sample) + 2)
    return float(np.nan_to_num(share * sum(squares)))


@dataclass(frozen=True, kw_only=True)
class Widening:
    """By how much the bounds of a resampled difference are widened, for few patients (Student's t) and few errors."""

    n: float
    """Effective number of the patients that decide the metric, at least 2."""
    unseen: float
    """See `unseen_variance`."""

    def apply(self, bounds: Bounds, estimate: float, confidence: float) -> Bounds:
        """Widen percentiles around an estimate."""
        normal, student = normal_quantile(confidence), student_quantile(confidence, self.n - 1)
        factor = student / normal * np.sqrt(self.n / (self.n - 1))
        low, high = (np.hypot((bound - estimate) * factor, normal * np.sqrt(self.unseen)) for bound in bounds)
        return float(estimate - low), float(estimate + high)


def find_widening(pairs: Sequence[tuple[Resampled, Resampled]], metric: str) -> Widening:
    """The widening of the mean difference over pairs of models, all evaluated on the same rows."""
    sample = pairs[0][0].sample
    unseen = 0.0 if no_interval_reason(metric, sample) else np.mean([unseen_variance(a, b, metric) for a, b in pairs])
    return Widening(n=max(sample.effective_patients(metric), 2.0), unseen=float(unseen))


def _rarer_class(sample: ClusteredSample) -> float:
    """Effective number of patients of the rarer class; of all patients in a sample of one class."""
    numbers = [sample.by_patient.effective_number(label) for label in (ABNORMAL, NORMAL)]
    return min(numbers) or max(numbers)


def _difference_df(sample: ClusteredSample, metric: str, without: Floats) -> float:
    patients = sample.by_patient
    if len(without) != patients.n_patients or min(patients.effective_number(label) for label in (ABNORMAL, NORMAL)) < 2:
        return sample.effective_patients(metric) - 1
    numbers = (patients.effective_number(label) for label in (ABNORMAL, NORMAL))
    return welch_df(without, patients.with_abnormal, *numbers)
