"""Confidence intervals of one model's metrics, over patients.

Images and studies of one patient are not independent, so patients are left out and drawn whole, with all of their rows.
Built-in metrics get closed-form intervals (`patient_intervals.py`), which hold with few patients and at the ends of the
range; `bench.interval_coverage` measures how often they contain the true value. Registered metrics are resampled: BCa
intervals (Efron 1987), widened for few patients. Two samples of the same patients get the same draws, so their
resampled values can be subtracted (`paired_difference.py`).

Shapes: N rows (images or studies), P patients, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import ndtr

from muralab.errors import SettingsError
from muralab.evaluation.interval_formulas import (
    bca_bounds,
    student_quantile,
)
from muralab.evaluation.metrics import METRICS, check_metrics, undefined_reason
from muralab.evaluation.patient_intervals import INTERVAL_OF_METHOD
from muralab.evaluation.patient_sums import ABNORMAL, NORMAL, PatientSums
from muralab.evaluation.predictions import UNCALIBRATED, Level, level_rows
from muralab.evaluation.weighted_sums import Floats, SortedScores
from muralab.serving.scaling import Scaling

N_RESAMPLES = 2000
CONFIDENCE = 0.95
MIN_PATIENTS = 10
"""With fewer patients of a class that decides a metric there is no interval."""
MIN_DEFINED = 0.9
"""Share of the resamples in which a registered metric must be defined."""
INTERVAL_METHOD = "patient-scores-2"
"""Names the methods in a run's tag. Runs without the tag logged BCa intervals of the bootstrap."""

_BLOCK = 64  # resamples per matrix product: the weights of 3,197 images then fit the processor's cache
_MAX_GROUPS = 250  # leaving out single patients of a large set would be slow where only weights will do


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    """The value of the original rows; NaN where it is undefined."""
    low: float
    """Lower bound; NaN where there is no interval."""
    high: float
    """Upper bound; NaN where there is no interval."""
    level: float = CONFIDENCE
    """Confidence, between 0 and 1."""
    n_resamples: int = 0
    """Resamples in which the value was defined; 0 for an interval in closed form."""
    reason: str | None = None
    """Why a number is missing, or how the interval was found in a special case."""

    def __str__(self) -> str:
        """Such as "0.853 [0.801, 0.899]", or the reason why it is undefined or has no interval."""
        if np.isnan(self.estimate):
            return f"undefined ({self.reason})"
        bounds = f"no interval: {self.reason}" if np.isnan(self.low) else f"{self.low:.3f}, {self.high:.3f}"
        return f"{self.estimate:.3f} [{bounds}]"


class ClusteredSample:
    """The rows of one model at one level, clustered by patient."""

    def __init__(self, rows: pd.DataFrame, *, threshold: float | Floats = 0.5) -> None:
        """Sort the rows once for all resamples.

        Args:
            rows: columns label, probability and patient, as `level_rows` gives them.
            threshold: a probability at or above it is called abnormal; one for all rows, or one each, [N].
        """
        self.labels = rows["label"].to_numpy()
        self.probabilities = rows["probability"].to_numpy()
        # Codes in the order of the names: the same patients get the same draws in every table.
        self.patients, names = pd.factorize(rows["patient"], sort=True)
        self.n_patients = len(names)
        self._scores = SortedScores(self.labels, self.probabilities, threshold=threshold)
        self._original = self._scores.unweighted()
        self._patient_by_rank = self.patients[self._scores.order]

    @cached_property
    def by_patient(self) -> PatientSums:
        """What each patient adds to the metrics."""
        return PatientSums(self._scores, self.patients, self.n_patients)

    def estimate(self, metric: str) -> float:
        """A metric of the original rows."""
        return float(METRICS[metric].values(self._original)[0])

    def deciding_classes(self, metric: str) -> list[int]:
        """The classes whose patients decide a metric; empty if all patients count equally."""
        known = METRICS[metric]
        if known.needs == "both" or known.method in ("shares", "loss"):
            return [ABNORMAL, NORMAL]
        return {"abnormal": [ABNORMAL], "normal": [NORMAL]}.get(known.needs, [])

    def effective_patients(self, metric: str) -> float:
        """Kish's number of the patients that decide a metric, those of the rarer class where both do."""
        classes = self.deciding_classes(metric)
        return min(map(self.by_patient.effective_number, classes), default=self.by_patient.effective_number())

    def too_few(self, metric: str) -> str | None:
        """Why a metric has too few deciding patients for an interval; None for `MIN_PATIENTS` or more."""
        kinds = {ABNORMAL: " with abnormal studies", NORMAL: " with normal studies"}
        by_class = sorted((self.by_patient.n_with(label), kinds[label]) for label in self.deciding_classes(metric))
        for n, kind in [(self.n_patients, ""), *by_class]:
            if n < MIN_PATIENTS:
                who = f"patient{kind} is" if n == 1 else f"patients{kind} are"
                return f"{n} {who} too few for an interval (at least {MIN_PATIENTS})"
        return None

    def values(self, metrics: Sequence[str], draws: Iterable[Floats]) -> dict[str, Floats]:
        """Each metric under blocks of weights [R, P] of the patients, [R]."""
        blocks: dict[str, list[Floats]] = {name: [] for name in metrics}
        for weights in draws:
            sums = self._scores.weighted(np.take(weights, self._patient_by_rank, axis=1))
            for name in metrics:
                blocks[name].append(METRICS[name].values(sums))
        return {name: np.concatenate(parts) for name, parts in blocks.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """Metrics of one sample without each patient, and under every draw of patients; each is computed when needed."""

    sample: ClusteredSample
    metrics: tuple[str, ...]
    """Names in `METRICS`."""
    n_resamples: int
    seed: int
    """Of the draws; one seed gives the same draws for all samples of P patients."""

    @cached_property
    def values(self) -> Mapping[str, Floats]:
        """Metric -> its value in each resample, [R]."""
        draws = draw_patients(self.sample.n_patients, self.n_resamples, self.seed)
        return self.sample.values(self.metrics, draws)

    @cached_property
    def without(self) -> Mapping[str, Floats]:
        """Metric -> its value without each patient, [P]; for ranked or registered ones, each group of patients."""
        fast = [name for name in self.metrics if METRICS[name].method not in ("jackknife", "bootstrap")]
        slow = [name for name in self.metrics if name not in fast and METRICS[name].no_interval is None]
        sums = self.sample.by_patient.without_each
        found = {name: METRICS[name].values(sums) for name in fast}
        return found | (self.sample.values(slow, leave_out_patients(self.sample.n_patients)) if slow else {})


def resample(
    sample: ClusteredSample, metrics: Sequence[str], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Resampled:
    """Prepare to leave out and to draw the patients of a sample.

    Args:
        sample: the rows of one model.
        metrics: names in `METRICS`.
        n_resamples: how often the patients are drawn, for metrics that need it.
        seed: of the draws.

    Raises:
        SettingsError: a name is not a metric, or fewer than 100 resamples.
    """
    if n_resamples < 100:
        raise SettingsError(f"An interval needs at least 100 resamples; got {n_resamples}.")
    return Resampled(sample=sample, metrics=tuple(check_metrics(metrics)), n_resamples=n_resamples, seed=seed)


def draw_patients(n_patients: int, n_resamples: int, seed: int) -> Iterator[Floats]:
    """How often each patient is drawn, in blocks [R, P] of whole numbers that add up to P in each row."""
    generator = np.random.default_rng(seed)
    for first in range(0, n_resamples, _BLOCK):
        n = min(_BLOCK, n_resamples - first)
        drawn = generator.integers(n_patients, size=(n, n_patients)) + np.arange(n)[:, None] * n_patients
        counts = np.bincount(drawn.ravel(), minlength=n * n_patients)
        yield counts.reshape(n, n_patients).astype(np.float64)


def leave_out_patients(n_patients: int) -> Iterator[Floats]:
    """Weights of all patients but one, in blocks [R, P]; with more than 250 patients, of all but one group of them."""
    n_groups = min(n_patients, _MAX_GROUPS)
    group = np.arange(n_patients) % n_groups
    for first in range(0, n_groups, _BLOCK):
        left_out = np.arange(first, min(first + _BLOCK, n_groups))
        yield (group[None, :] != left_out[:, None]).astype(np.float64)


def metric_intervals(
    predictions: pd.DataFrame,
    *,
    level: Level,
    metrics: Sequence[str],
    threshold: float = 0.5,
    scaling: Scaling = UNCALIBRATED,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Metrics of a predictions table at one level, with patient-clustered intervals.

    Args:
        predictions: the columns of `PREDICTION_COLUMNS`.
        level: "image" or "study".
        metrics: names in `METRICS`.
        threshold: on the calibrated probability of that level.
        scaling: of the logits of that level.
        n_resamples: how often the patients are drawn.
        seed: of the draws.
        confidence: of the intervals.

    Raises:
        DataError: the table cannot be evaluated (see `check_predictions`).
        SettingsError: a name is not a metric, or a setting is out of range.
    """
    sample = ClusteredSample(level_rows(predictions, level=level, scaling=scaling), threshold=threshold)
    resampled = resample(sample, metrics, n_resamples=n_resamples, seed=seed)
    return {name: metric_interval(resampled, name, confidence=confidence) for name in metrics}


def metric_interval(resampled: Resampled, metric: str, *, confidence: float = CONFIDENCE) -> Interval:
    """One metric of one model with its interval.

    Raises:
        SettingsError: the confidence is not in [0.5, 1).
    """
    check_confidence(confidence)
    sample = resampled.sample
    estimate, reason = sample.estimate(metric), no_interval_reason(metric, sample)
    if reason is not None:
        return Interval(estimate=estimate, low=np.nan, high=np.nan, level=confidence, reason=reason)
    if METRICS[metric].method == "bootstrap":
        return _bootstrap_interval(resampled, metric, estimate, confidence)
    find = INTERVAL_OF_METHOD[METRICS[metric].method]
    low, high, reason = find(metric, sample.by_patient, (estimate, resampled.without[metric]), confidence)
    smallest, largest = METRICS[metric].limits
    return Interval(estimate=estimate, low=max(low, smallest), high=min(high, largest), level=confidence, reason=reason)


def _bootstrap_interval(resampled: Resampled, metric: str, estimate: float, confidence: float) -> Interval:
    """A BCa interval whose tails are widened from the normal to Student's distribution, and by n / (n - 1)."""
    values, n = resampled.values[metric], max(resampled.sample.effective_patients(metric), 2.0)
    defined = values[~np.isnan(values)]
    low = high = np.nan
    reason = no_interval_reason(metric, resampled.sample, len(defined) / len(values))
    if reason is None and np.ptp(defined) < 1e-12:
        reason = "every resample gives the same value, so resampling cannot tell how far it is from the true one"
    if reason is None:
        quantile = student_quantile(confidence, n - 1) * np.sqrt(n / (n - 1))
        low, high = bca_bounds(estimate, defined, resampled.without[metric], 1 - 2 * float(ndtr(-quantile)))
    return Interval(estimate=estimate, low=low, high=high, level=confidence, n_resamples=len(defined), reason=reason)


def check_confidence(confidence: float) -> None:
    """Refuse a level of confidence that makes no interval.

    Raises:
        SettingsError: it is not in [0.5, 1).
    """
    if not 0.5 <= confidence < 1:
        raise SettingsError(f"A confidence must lie in [0.5, 1), such as 0.95; got {confidence}.")


def no_interval_reason(metric: str, sample: ClusteredSample, defined: float = 1.0) -> str | None:
    """Why there is no interval of a metric, or None where there is one.

    Args:
        metric: a name in `METRICS`.
        sample: the rows.
        defined: share of the resamples in which the metric is defined, where it is resampled.
    """
    undefined = undefined_reason(metric, sample.labels, sample.probabilities)
    if undefined is not None:
        return undefined
    if METRICS[metric].no_interval is not None:
        return METRICS[metric].no_interval
    if defined < MIN_DEFINED:
        return f"{metric} is undefined in {1 - defined:.0%} of the resamples: too few patients of one class"
    return sample.too_few(metric)
