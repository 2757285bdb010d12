"""What each patient adds to the sums that metrics are made of, and how many patients there are of either class.

Shapes: N rows (images or studies), P patients.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muralab.evaluation.interval_formulas import kish_number
from muralab.evaluation.weighted_sums import Floats, Ints, SortedScores, Sums

ABNORMAL, NORMAL = 1, 0


class PatientSums:
    """The sums of one sample, by patient and class."""

    def __init__(self, scores: SortedScores, patients: Ints, n_patients: int) -> None:
        """Add up the rows of each patient, of either class.

        Args:
            scores: all rows.
            patients: code from 0 of each row's patient, [N], in the order in which the rows were given.
            n_patients: P.
        """
        self.n_patients = n_patients
        self._scores, self._patients = scores, patients[scores.order]
        self._abnormal = scores.labels == ABNORMAL
        code = self._patients * 2 + self._abnormal
        self._by_class = scores.sums_by(code, 2 * n_patients).reshape(n_patients, 2, -1)

    def of_class(self, label: int) -> Sums:
        """What the abnormal (1) or normal (0) rows of each patient add, [P]."""
        return Sums(self._by_class[:, label])

    @cached_property
    def own(self) -> Sums:
        """What the rows of each patient add, [P]."""
        return Sums(self._by_class.sum(axis=1))

    @cached_property
    def without_each(self) -> Sums:
        """The sums without each patient in turn, [P]: exact, and much faster than weights of the rows."""
        own = self._by_class.sum(axis=1)
        return Sums(own.sum(axis=0) - own, self._correct_pairs_without())

    @cached_property
    def rows(self) -> NDArray[np.float64]:
        """Normal and abnormal rows of each patient, [P, 2]."""
        return np.stack([self.of_class(label).total for label in (NORMAL, ABNORMAL)], axis=1)

    def effective_number(self, label: int | None = None) -> float:
        """Kish's number of patients with rows of a class; of all patients without a class."""
        return kish_number(self.rows.sum(axis=1) if label is None else self.rows[:, label])

    def n_with(self, label: int) -> int:
        """Patients with rows of a class."""
        return int((self.rows[:, label] > 0).sum())

    @property
    def with_abnormal(self) -> NDArray[np.bool_]:
        """Which patients have abnormal rows, [P]."""
        return self.rows[:, ABNORMAL] > 0

    def n_misranked(self) -> tuple[int, int]:
        """Patients with an abnormal row not above all normal ones; those with a normal row not below all abnormal."""
        heights, abnormal = self._scores.heights, self._abnormal
        missed = abnormal & (heights <= heights[~abnormal].max())
        reached = ~abnormal & (heights >= heights[abnormal].min())
        return len(np.unique(self._patients[missed])), len(np.unique(self._patients[reached]))

    def equals(self, other: PatientSums) -> bool:
        """Whether two models' rows add the same for every patient, as the same predictions do."""
        same = self._by_class.shape == other._by_class.shape
        return same and bool(np.allclose(self._by_class, other._by_class, rtol=0, atol=1e-12))

    @property
    def is_constant(self) -> bool:
        """Whether all rows have one probability."""
        return int(self._scores.heights.max()) == 0

    def _correct_pairs_without(self) -> Floats:
        """Correct pairs without each patient, [P]: all minus those with its rows (pairs within it only once)."""
        heights, abnormal, patients = self._scores.heights, self._abnormal, self._patients
        below = _rank(heights[abnormal], heights[~abnormal])
        above = abnormal.sum() - _rank(heights[~abnormal], heights[abnormal])
        key = patients * len(heights) + heights
        within = _rank(key[abnormal], key[~abnormal])
        within -= _rank(patients[abnormal], patients[~abnormal] + 0.5)  # rows of patients with a lower code
        lost_below = np.bincount(patients[abnormal], weights=below - within, minlength=self.n_patients)
        lost_above = np.bincount(patients[~abnormal], weights=above, minlength=self.n_patients)
        return np.asarray(below.sum() - lost_below - lost_above)


def _rank(values: NDArray[Any], others: NDArray[Any]) -> Floats:
    """How many of the others lie below each value; an equal one counts half."""
    others = np.sort(others)
    return np.asarray(
        (np.searchsorted(others, values, side="left") + np.searchsorted(others, values, side="right")) / 2
    )
