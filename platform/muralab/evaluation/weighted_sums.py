"""Weighted sums of labelled probabilities, for many sets of weights at once: what every built-in metric is made of.

A metric on resampled rows equals the metric on the original rows with whole-number weights. So the rows are sorted
once, and each resample is one row of a weight matrix. Shapes: N rows (images or studies), G groups of equal
probability, R resamples.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muralab.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ECE_BINS = 15
"""Bins of equal width in the expected calibration error."""

_CELLS = 4  # columns of the confusion matrix: tn, fp, fn, tp


class SortedScores:
    """Labels and probabilities, sorted and binned once, to be weighted many times."""

    def __init__(self, labels: ArrayLike, probabilities: ArrayLike, *, threshold: float | Floats = 0.5) -> None:
        """Sort the rows and precompute what each adds to each sum.

        Args:
            labels: 0 or 1, shape [N].
            probabilities: in [0, 1], shape [N].
            threshold: a probability at or above it is called abnormal; one for all rows, or one each, [N].

        Raises:
            DataError: lengths differ, the threshold is missing, or a label or probability is missing or out of range.
        """
        if np.isnan(threshold).any():
            raise DataError("The threshold is missing (NaN), so no study can be called normal or abnormal.")
        y, p = checked_arrays(labels, probabilities)
        self.order: Ints = np.argsort(-p, kind="stable")
        self.labels = y[self.order].astype(np.float64)
        self.probabilities = p[self.order]
        new_group = np.ones(len(p), dtype=bool)
        new_group[1:] = np.diff(self.probabilities) != 0
        self.starts: Ints = np.flatnonzero(new_group)
        self.heights: Ints = -np.cumsum(new_group) + len(self.starts)
        """From 0 for the rows of the lowest probability; equal where the probabilities are, [N]."""
        self._columns = _columns(self.labels, self.probabilities, np.broadcast_to(threshold, len(p))[self.order])

    def weighted(self, weights: Floats) -> WeightedSums:
        """The sums under R sets of weights.

        Args:
            weights: shape [R, N], whole numbers, columns in the order of `self.order`.
        """
        return WeightedSums(self, weights)

    def unweighted(self) -> WeightedSums:
        """The sums of the original rows: one resample that takes each row once."""
        return WeightedSums(self, np.ones((1, len(self.labels))))

    def sums(self, weights: Floats) -> Floats:
        """Each row's contributions summed under the weights, shape [R, columns]."""
        summed: Floats = weights @ self._columns
        return summed

    def sums_by(self, code: Ints, n_codes: int) -> Floats:
        """Each row's contributions added up over rows of one code, shape [n_codes, columns].

        Args:
            code: from 0, shape [N], in the order of `self.order`.
            n_codes: how many codes there are.
        """
        columns = [np.bincount(code, weights=column, minlength=n_codes) for column in self._columns.T]
        return np.stack(columns, axis=1)

    def by_group(self, weights: Floats) -> Floats:
        """Weights added up over equal probabilities, shape [R, G], in falling order of probability."""
        if len(self.starts) == len(self.labels):
            return weights
        grouped: Floats = np.add.reduceat(weights, self.starts, axis=1)
        return grouped


class Sums:
    """R sets of sums: what a metric is computed from.

    Sums that were added up elsewhere know no rows, so metrics that need them (average precision, registered ones) raise
    a TypeError; `WeightedSums` has them.
    """

    def __init__(self, sums: Floats, correct_pairs: Floats | None = None) -> None:
        """Take sums that were added up elsewhere.

        Args:
            sums: shape [R, columns], as `SortedScores.sums` returns them.
            correct_pairs: shape [R]; without them there is no AUROC.
        """
        self._given = sums, correct_pairs

    @property
    def _sums(self) -> Floats:
        return self._given[0]

    @cached_property
    def confusion(self) -> tuple[Floats, Floats, Floats, Floats]:
        """True negatives, false positives, false negatives, true positives; each [R]."""
        tn, fp, fn, tp = self._sums[:, :_CELLS].T
        return tn, fp, fn, tp

    @property
    def positives(self) -> Floats:
        """Weight of the abnormal rows, [R]."""
        _, _, fn, tp = self.confusion
        return fn + tp

    @property
    def negatives(self) -> Floats:
        """Weight of the normal rows, [R]."""
        tn, fp, _, _ = self.confusion
        return tn + fp

    @property
    def total(self) -> Floats:
        """Weight of all rows, [R]."""
        return self.positives + self.negatives

    @property
    def squared_error(self) -> Floats:
        """Sum of squared differences between probability and label, [R]."""
        return self._sums[:, _CELLS]

    @property
    def log_loss(self) -> Floats:
        """Sum of negative log likelihoods, nats, [R]."""
        return self._sums[:, _CELLS + 1]

    @property
    def bin_gaps(self) -> Floats:
        """Sum of probability minus label in each calibration bin, [R, ECE_BINS]."""
        return self._sums[:, _CELLS + 2 :]

    @property
    def correct_pairs(self) -> Floats:
        """Weight of the pairs of a normal row and an abnormal one above it, [R]; a tie counts half."""
        if self._given[1] is None:
            raise TypeError("These sums were added up without the ranks of the rows.")
        return self._given[1]

    @property
    def ranking(self) -> tuple[Floats, Floats, Floats]:
        """By group of equal probabilities, in falling order, each [R, G].

        The weight of the abnormal rows, that of the normal rows, and the cumulative abnormal weight.
        """
        raise TypeError("These sums were added up without the ranks of the rows.")

    def rows(self, resample: int) -> tuple[Ints, Floats]:
        """Labels and probabilities of one resample, each row repeated by its weight."""
        raise TypeError(f"These sums were added up without the rows: there is no resample {resample}.")


class WeightedSums(Sums):
    """Sums under R sets of weights of the rows; each is computed when a metric first asks for it."""

    def __init__(self, scores: SortedScores, weights: Floats) -> None:
        self._scores = scores
        self._weights = weights

    @cached_property
    def _sums(self) -> Floats:
        return self._scores.sums(self._weights)

    @cached_property
    def correct_pairs(self) -> Floats:
        """See `Sums`."""
        abnormal, normal, found = self.ranking
        return np.asarray(np.einsum("rg,rg->r", normal, found) - 0.5 * np.einsum("rg,rg->r", normal, abnormal))

    @cached_property
    def ranking(self) -> tuple[Floats, Floats, Floats]:
        """See `Sums`."""
        abnormal = self._weights * self._scores.labels
        normal = self._scores.by_group(self._weights - abnormal)
        abnormal = self._scores.by_group(abnormal)
        return abnormal, normal, np.cumsum(abnormal, axis=1)

    def rows(self, resample: int) -> tuple[Ints, Floats]:
        """See `Sums`."""
        times = self._weights[resample].astype(np.int64)
        return np.repeat(self._scores.labels.astype(np.int64), times), np.repeat(self._scores.probabilities, times)


def checked_arrays(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Ints, Floats]:
    """Labels [N] as integers and probabilities [N] as float64.

    Raises:
        DataError: shapes differ, or a label or probability is missing or out of range.
    """
    y: NDArray[Any] = np.asarray(labels)
    p = np.asarray(probabilities, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise DataError(
            f"Labels and probabilities must be one-dimensional and of equal length; got shapes {y.shape} and {p.shape}."
        )
    wrong_labels = int((~np.isin(y, (0, 1))).sum())
    if wrong_labels:
        raise DataError(f"Labels must be 0 or 1; {wrong_labels} of {len(y)} are neither.")
    missing = int(np.isnan(p).sum())
    if missing:
        raise DataError(f"{missing} of {len(p)} probabilities are missing (NaN). Re-run this model's predictions.")
    outside = int(((p < 0) | (p > 1)).sum())
    if outside:
        raise DataError(f"Probabilities must lie in [0, 1]; {outside} of {len(p)} do not. Were logits passed?")
    return y.astype(np.int64), p


def _columns(labels: Floats, probabilities: Floats, threshold: Floats) -> Floats:
    """What each row adds to each sum, [N, 6 + ECE_BINS]: confusion cells, squared error, log loss, gap in its bin."""
    called = probabilities >= threshold
    abnormal = labels == 1
    # The clip is scikit-learn's: a certain and wrong probability costs 36 nats, not infinity.
    tiny = np.finfo(np.float64).eps
    right = np.clip(np.where(abnormal, probabilities, 1 - probabilities), tiny, 1 - tiny)
    bins = np.minimum((probabilities * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.zeros((len(labels), ECE_BINS))
    gaps[np.arange(len(labels)), bins] = probabilities - labels
    cells = [~abnormal & ~called, ~abnormal & called, abnormal & ~called, abnormal & called]
    return np.column_stack([*cells, (probabilities - labels) ** 2, -np.log(right), gaps]).astype(np.float64)
