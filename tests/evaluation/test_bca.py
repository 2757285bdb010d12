"""Bias-corrected and accelerated ends against SciPy's, on the same resamples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from muralab.evaluation.bca import bca_ends, leave_out_patients

SKEWED = np.random.default_rng(0).exponential(size=25)
TIED = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 9], dtype=float)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    ("values", "statistic"), [(SKEWED, np.mean), (SKEWED, np.var), (-SKEWED, np.mean), (TIED, np.mean)]
)
def test_ends_are_scipys(values, statistic, confidence):
    theirs = stats.bootstrap((values,), statistic, n_resamples=3000, confidence_level=confidence, rng=1, method="BCa")
    kept = np.concatenate(list(leave_out_patients(len(values)))).astype(bool)
    left_out = np.array([statistic(values[row]) for row in kept])
    ours = bca_ends(statistic(values), theirs.bootstrap_distribution, left_out, confidence)
    assert ours == pytest.approx(theirs.confidence_interval, abs=1e-9)


def test_ends_of_a_skewed_figure_are_not_its_percentiles():
    drawn = np.random.default_rng(1).choice(SKEWED, size=(3000, len(SKEWED))).var(axis=1)
    left_out = np.array([np.delete(SKEWED, row).var() for row in range(len(SKEWED))])
    low, high = bca_ends(SKEWED.var(), drawn, left_out, 0.95)
    percentiles = np.quantile(drawn, [0.025, 0.975])
    assert low > percentiles[0] * 1.05
    assert high > percentiles[1] * 1.05


def test_a_figure_that_no_patient_changes_is_not_accelerated():
    drawn = np.linspace(0, 1, 1001)
    assert bca_ends(0.5, drawn, np.full(20, 0.5), 0.9) == pytest.approx((0.05, 0.95), abs=1e-9)
