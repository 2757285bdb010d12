"""How sure a figure is: patient-clustered bootstrap intervals, alone and for the difference of two models.

Patients are drawn with replacement, each with all of its rows, since images and studies of one patient are not
independent. A draw is a row of whole-number weights, so thousands of resamples are a few matrix products. Shapes: N
rows (images or studies), P patients, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from muralab.errors import DataError, SettingsError, numbered
from muralab.evaluation.bca import bca_ends, draw_patients, exact_share, leave_out_patients
from muralab.evaluation.metrics import METRICS, Needs, check_metrics, undefined_reason
from muralab.evaluation.predictions import Level, level_rows
from muralab.evaluation.weighted_sums import Floats, Tally

MIN_PATIENTS = 10
"""Fewer patients than this say nothing about the spread between patients: the interval is NaN."""

MIN_DEFINED = 0.9
"""Share of the resamples in which a metric must be defined."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the interval that holds the truth with the stated confidence."""

    estimate: float
    """The figure of the rows as they are; NaN where it is undefined."""
    low: float
    """Lower end; NaN where no interval can be given."""
    high: float
    """Upper end; NaN where no interval can be given."""
    level: float = 0.95
    """Confidence, between 0 and 1."""
    n_resamples: int
    """Resamples in which the figure was defined."""
    reason: str | None = None
    """Why a number is missing, or how the interval was found where resampling could not find it."""

    def __str__(self) -> str:
        """Such as "0.853 [0.801, 0.899]"; an undefined one says so."""
        if np.isnan(self.estimate):
            return f"undefined ({self.reason})"
        ends = "no interval" if np.isnan(self.low) else f"{self.low:.3f}, {self.high:.3f}"
        return f"{self.estimate:.3f} [{ends}]"


def bootstrap(
    predictions: pd.DataFrame,
    *,
    level: Level,
    metrics: Sequence[str],
    threshold: float = 0.5,
    temperature: float = 1.0,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Metrics of one model at one level, with patient-clustered intervals.

    Args:
        predictions: the columns of `PREDICTION_COLUMNS`.
        level: "image" or "study".
        metrics: names in `METRICS`.
        threshold: on the calibrated probability of that level.
        temperature: divides the logits of that level.
        n_resamples: draws of patients.
        seed: of the draws.
        confidence: of the intervals.

    Raises:
        DataError: the table cannot be judged (see `check_predictions`).
        SettingsError: a name is no metric, or an impossible setting.
    """
    _check_settings(n_resamples, confidence)
    names = check_metrics(metrics)
    sample = Sample(level_rows(predictions, level=level, temperature=temperature), threshold)
    (resampled,) = resample([sample], names, draw_patients(sample.n_patients, n_resamples, seed))
    (left_out,) = resample([sample], names, leave_out_patients(sample.n_patients))
    intervals = {}
    for name in names:
        found = _interval(name, sample, sample.estimate(name), resampled[name], left_out[name], confidence)
        intervals[name] = _without_spread(name, sample, found)
    return intervals


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    level: Level,
    metric: str,
    threshold_a: float = 0.5,
    threshold_b: float = 0.5,
    temperature_a: float = 1.0,
    temperature_b: float = 1.0,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """How much one metric of model `a` exceeds that of model `b` on the same patients, as a - b.

    Every resample weighs the patients of both alike, so what makes a draw of patients hard cancels out.

    Args:
        a: predictions of the one model.
        b: predictions of the other, of the same images.
        level: "image" or "study".
        metric: a name in `METRICS`.
        threshold_a: of `a`, on the calibrated probability of that level.
        threshold_b: of `b`.
        temperature_a: divides the logits of `a` of that level.
        temperature_b: of `b`.
        n_resamples: draws of patients.
        seed: of the draws.
        confidence: of the interval.

    Raises:
        DataError: a table cannot be judged, or the two differ in images, labels, studies or patients.
        SettingsError: the name is no metric, or an impossible setting.
    """
    _check_settings(n_resamples, confidence)
    check_metrics([metric])
    rows_a = level_rows(a, level=level, temperature=temperature_a)
    rows_b = level_rows(b, level=level, temperature=temperature_b)
    check_same_images(a, b)
    key = str(level)  # both levels name their rows by the column of that name
    samples = [
        Sample(rows.sort_values(key, kind="stable"), threshold)
        for rows, threshold in ((rows_a, threshold_a), (rows_b, threshold_b))
    ]
    n_patients = samples[0].n_patients
    resampled, left_out = (
        np.subtract(*(values[metric] for values in resample(samples, [metric], draws)))
        for draws in (draw_patients(n_patients, n_resamples, seed), leave_out_patients(n_patients))
    )
    estimate = samples[0].estimate(metric) - samples[1].estimate(metric)
    return _interval(metric, samples[0], estimate, resampled, left_out, confidence)


class Sample:
    """The rows of one model at one level, ready to be weighed by patient."""

    def __init__(self, rows: pd.DataFrame, threshold: float) -> None:
        self.labels = rows["label"].to_numpy()
        self.probabilities = rows["probability"].to_numpy()
        # Codes in the order of the names: the same patients get the same draws in every table.
        self.patients, names = pd.factorize(rows["patient"], sort=True)
        self.n_patients = len(names)
        self.threshold = threshold
        self.tally = Tally(self.labels, self.probabilities, threshold=threshold)
        self._patient_by_rank = self.patients[self.tally.order]

    def estimate(self, name: str) -> float:
        """The figure of the rows as they are."""
        return METRICS[name](self.labels, self.probabilities, threshold=self.threshold)

    def n_deciding_patients(self, needs: Needs) -> int:
        """Patients with rows of the class that a metric is about; of both classes, those of the rarer one."""
        n_abnormal, n_normal = (len(np.unique(self.patients[self.labels == label])) for label in (1, 0))
        return {"rows": self.n_patients, "abnormal": n_abnormal, "normal": n_normal}.get(
            needs, min(n_abnormal, n_normal)
        )

    def values(self, names: Sequence[str], patient_weights: Floats) -> list[Floats]:
        """Each metric under weights [R, P] of the patients, [R]."""
        weighed = self.tally.weigh(np.take(patient_weights, self._patient_by_rank, axis=1))
        return [METRICS[name].values(weighed) for name in names]


def resample(samples: Sequence[Sample], names: Sequence[str], draws: Iterable[Floats]) -> list[dict[str, Floats]]:
    """Each sample's metrics [R] under the same weights of patients."""
    blocks: list[list[list[Floats]]] = [[] for _ in samples]
    for weights in draws:
        for sample, found in zip(samples, blocks):
            found.append(sample.values(names, weights))
    return [{name: np.concatenate(parts) for name, parts in zip(names, zip(*found))} for found in blocks]


def _interval(
    name: str, sample: Sample, estimate: float, resampled: Floats, left_out: Floats, confidence: float
) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    low = high = np.nan
    reason = _no_interval_reason(name, sample, len(defined) / len(resampled))
    if reason is None:
        low, high = bca_ends(estimate, defined, left_out, confidence)
        if np.ptp(defined) < 1e-12:
            reason = "every resample gives the same value"
    return Interval(estimate=estimate, low=low, high=high, level=confidence, n_resamples=len(defined), reason=reason)


def _without_spread(name: str, sample: Sample, found: Interval) -> Interval:
    """Exact ends for a figure without a single error (or a single success), which no resample varies."""
    metric = METRICS[name]
    at_best, at_worst = found.estimate == 1, found.estimate == 0 and metric.chance != 0
    if found.low != found.high or not metric.higher_is_better or not (at_best or at_worst):
        return found
    n = sample.n_deciding_patients(metric.needs)
    share = exact_share(n, found.level)
    lowest = 2 * share - 1 if name == "kappa" else share  # kappa loses two points for each point of accuracy
    if at_best:
        return replace(found, low=lowest, reason=f"exact bound for {n} patients without an error")
    return replace(found, high=1 - share, reason=f"exact bound for {n} patients without a success")


def _no_interval_reason(name: str, sample: Sample, defined: float) -> str | None:
    undefined = undefined_reason(name, sample.labels, sample.probabilities)
    if undefined is not None:
        return undefined
    if METRICS[name].no_interval is not None:
        return METRICS[name].no_interval
    if sample.n_patients < MIN_PATIENTS:
        return f"{sample.n_patients} patients are too few for an interval (at least {MIN_PATIENTS})"
    if defined < MIN_DEFINED:
        return f"{name} is undefined in {1 - defined:.0%} of the resamples: too few patients of one class"
    return None


def _check_settings(n_resamples: int, confidence: float) -> None:
    if n_resamples < 100:
        raise SettingsError(f"An interval needs at least 100 resamples; got {n_resamples}.")
    if not 0.5 <= confidence < 1:
        raise SettingsError(f"A confidence must lie in [0.5, 1), such as 0.95; got {confidence}.")


def check_same_images(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Refuse two tables of predictions that differ in images, labels, studies or patients, with a DataError."""
    only = sorted(set(a["image"]) ^ set(b["image"]))
    if only:
        raise DataError(
            numbered(
                f"The two models were judged on different images: {len(only)} have one prediction only. Judge both on "
                "the same test set:",
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
