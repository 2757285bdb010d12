"""Two models at one operating point: sensitivity at equal specificity, specificity at equal sensitivity.

Each model's own threshold says as much about how it was fitted as about the model. Here the threshold of one model, the
reference, fixes the specificity (or sensitivity), and both models are read off their ROC curves there, in the sample
and in every draw of patients. Shapes: S studies, P patients, R resamples, G groups of equal probability.
"""

from __future__ import annotations

import numpy as np

from muralab.evaluation.intervals import (
    CONFIDENCE,
    MIN_DEFINED,
    N_RESAMPLES,
    ClusteredSample,
    Interval,
    draw_patients,
)
from muralab.evaluation.weighted_sums import Floats


def matched_differences(
    a: ClusteredSample,
    reference: ClusteredSample,
    threshold: float,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[Interval, Interval]:
    """How much `a` exceeds a reference at the reference's operating point.

    Args:
        a: the studies of one model.
        reference: the same studies, in the same order, of the other model.
        threshold: of the reference, on its probabilities.
        n_resamples: how often the patients are drawn.
        seed: of the draws.
        confidence: of the percentile intervals.

    Returns:
        The difference in sensitivity at the reference's specificity, and that in specificity at its sensitivity.
    """
    called = reference.probabilities >= threshold
    curves = [_Curve(model.probabilities, model.labels) for model in (a, reference)]
    whole = _differences(curves, called, reference.labels, np.ones((1, len(called))))
    blocks = [
        _differences(curves, called, reference.labels, np.take(draw, reference.patients, axis=1))
        for draw in draw_patients(reference.n_patients, n_resamples, seed)
    ]
    too_few = reference.too_few("balanced_accuracy")  # both classes decide, one by the operating point
    return tuple(
        _percentile_interval(float(estimate[0]), np.concatenate(values), too_few, confidence)
        for estimate, values in zip(whole, zip(*blocks))
    )  # type: ignore[return-value]


class _Curve:
    """The ROC curve of one model under any weights of its studies."""

    def __init__(self, probabilities: Floats, labels: np.ndarray) -> None:
        self.order = np.argsort(-probabilities, kind="stable")
        falling = probabilities[self.order]
        self.ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
        self.abnormal = labels[self.order] == 1

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weighted normal and abnormal studies called abnormal, from none on, [R, G + 1] each."""
        ordered = weights[:, self.order]
        found = np.cumsum(np.where(self.abnormal, ordered, 0.0), axis=1)[:, self.ends]
        false = np.cumsum(np.where(self.abnormal, 0.0, ordered), axis=1)[:, self.ends]
        start = np.zeros((len(weights), 1))
        return np.hstack([start, false]), np.hstack([start, found])


def _differences(
    curves: list[_Curve], called: np.ndarray, labels: np.ndarray, weights: Floats
) -> tuple[Floats, Floats]:
    """Differences in sensitivity and in specificity under R sets of weights [R, S]; NaN without both classes."""
    abnormal = labels == 1
    n_abnormal, n_normal = weights[:, abnormal].sum(axis=1), weights[:, ~abnormal].sum(axis=1)
    false, found = weights[:, ~abnormal & called].sum(axis=1), weights[:, abnormal & called].sum(axis=1)
    points = [curve.counts(weights) for curve in curves]
    sensitivity = [_interpolate(x, y, false) for x, y in points]
    false_calls = [_interpolate(y, x, found) for x, y in points]
    with np.errstate(divide="ignore", invalid="ignore"):
        defined = np.where((n_abnormal > 0) & (n_normal > 0), 1.0, np.nan)
        return (
            defined * (sensitivity[0] - sensitivity[1]) / n_abnormal,
            defined * (false_calls[1] - false_calls[0]) / n_normal,
        )


def _interpolate(x: Floats, y: Floats, at: Floats) -> Floats:
    """Read rising curves [R, G] at one position each [R]: the middle of a vertical step, linear between points."""
    last = (x <= at[:, None]).sum(axis=1) - 1  # x starts at 0
    first = np.minimum((x < at[:, None]).sum(axis=1), x.shape[1] - 1)
    rows = np.arange(len(x))
    on_step = first <= last
    low, high = np.where(on_step, first, last), np.where(on_step, last, first)
    span = x[rows, high] - x[rows, low]
    share = np.where(on_step, 0.5, (at - x[rows, low]) / np.where(span > 0, span, 1.0))
    return np.asarray(y[rows, low] + share * (y[rows, high] - y[rows, low]))


def _percentile_interval(estimate: float, values: Floats, too_few: str | None, confidence: float) -> Interval:
    defined = values[~np.isnan(values)]
    low = high = np.nan
    reason = None
    if np.isnan(estimate):
        reason = "the studies are of one class"
    elif too_few is not None:
        reason = too_few
    elif len(defined) < MIN_DEFINED * len(values):
        reason = "it is undefined in too many of the resamples: too few patients of one class"
    else:
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.quantile(defined, (tail, 1 - tail)))
    return Interval(estimate=estimate, low=low, high=high, level=confidence, n_resamples=len(defined), reason=reason)
