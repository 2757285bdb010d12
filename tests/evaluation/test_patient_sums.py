"""What each patient adds equals what leaving it out takes away."""

from __future__ import annotations

import numpy as np
import pytest

from muralab.evaluation.intervals import ClusteredSample, leave_out_patients, resample
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.predictions import level_rows
from muralab.evaluation.weighted_sums import Sums

FAST = [name for name, metric in METRICS.items() if metric.method not in ("jackknife", "bootstrap")]


@pytest.fixture(params=["study", "image"])
def sample(predictions, request):
    """Patients with rows of both classes, and many equal probabilities."""
    coarse = predictions.assign(logit=(predictions["logit"]).round())
    return ClusteredSample(level_rows(coarse, level=request.param), threshold=0.4)


@pytest.mark.parametrize("metric", FAST)
def test_subtracting_a_patient_equals_leaving_it_out(sample, metric):
    (expected,) = sample.values([metric], leave_out_patients(sample.n_patients)).values()
    assert resample(sample, [metric]).without[metric] == pytest.approx(expected, abs=1e-12)


def test_patients_are_counted_by_class(sample):
    patients = sample.by_patient
    abnormal = sample.labels == 1
    assert patients.n_with(1) == len(np.unique(sample.patients[abnormal]))
    assert patients.rows.sum(axis=0).tolist() == [(~abnormal).sum(), abnormal.sum()]
    assert 1 < patients.effective_number(1) < patients.n_with(1)
    assert patients.effective_number() < patients.n_patients


def test_misranked_patients_are_counted(sample):
    p, abnormal = sample.probabilities, sample.labels == 1
    low, high = p[abnormal].min(), p[~abnormal].max()
    expected = [len(np.unique(sample.patients[rows])) for rows in (abnormal & (p <= high), ~abnormal & (p >= low))]
    assert list(sample.by_patient.n_misranked()) == expected


def test_equal_predictions_are_recognised(predictions):
    one, same, other = (
        ClusteredSample(level_rows(table, level="image")).by_patient
        for table in (predictions, predictions.iloc[::-1], predictions.assign(logit=predictions["logit"] * 1.01))
    )
    assert one.equals(same)
    assert not one.equals(other)
    assert not one.is_constant


def test_sums_without_rows_have_no_ranking():
    sums = Sums(np.zeros((1, 6)))
    for ask in (lambda: sums.correct_pairs, lambda: sums.ranking, lambda: sums.rows(0)):
        with pytest.raises(TypeError, match="added up without"):
            ask()
