"""Two models at one operating point: against direct counts, and with intervals that behave."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from muralab.evaluation.intervals import ClusteredSample
from muralab.evaluation.matched_point import matched_differences

RNG = np.random.default_rng(5)
LABELS = (RNG.random(150) < 0.4).astype(int)
PATIENTS = RNG.integers(100, size=150)


def sample(skill: float, seed: int, labels: np.ndarray = LABELS) -> ClusteredSample:
    noise = np.random.default_rng(seed).normal(size=len(labels))
    probabilities = 1 / (1 + np.exp(-skill * (2 * labels - 1) - noise))
    return ClusteredSample(pd.DataFrame({"label": labels, "probability": probabilities, "patient": PATIENTS}))


def sensitivity_at(one: ClusteredSample, false_positive_rate: float) -> float:
    """The middle of the ROC curve's vertical step."""
    x, y, _ = roc_curve(one.labels, one.probabilities, drop_intermediate=False)
    return float(y[np.isclose(x, false_positive_rate)].min() + y[np.isclose(x, false_positive_rate)].max()) / 2


def test_the_sensitivity_is_read_at_the_references_specificity() -> None:
    a, reference = sample(1.0, 1), sample(0.6, 2)
    rate = float((reference.probabilities[LABELS == 0] >= 0.5).mean())
    found, _ = matched_differences(a, reference, 0.5, n_resamples=100)
    assert found.estimate == pytest.approx(sensitivity_at(a, rate) - sensitivity_at(reference, rate), abs=1e-12)


def test_the_specificity_is_the_sensitivity_with_the_classes_swapped() -> None:
    a, reference = sample(1.0, 1), sample(0.6, 2)
    swapped = [
        ClusteredSample(pd.DataFrame({"label": 1 - LABELS, "probability": 1 - one.probabilities, "patient": PATIENTS}))
        for one in (a, reference)
    ]
    _, specificity = matched_differences(a, reference, 0.5, n_resamples=100)
    sensitivity, _ = matched_differences(*swapped, 0.5, n_resamples=100)
    assert specificity.estimate == pytest.approx(sensitivity.estimate, abs=1e-12)
    assert (specificity.low, specificity.high) == pytest.approx((sensitivity.low, sensitivity.high), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9, 1.0])
def test_a_model_does_not_differ_from_itself(threshold: float) -> None:
    for found in matched_differences(sample(1.0, 1), sample(1.0, 1), threshold, n_resamples=100):
        assert (found.estimate, found.low, found.high) == (0, 0, 0)


def test_equal_probabilities_are_one_point_of_the_curve() -> None:
    reference, constant = sample(1.0, 1), sample(1.0, 1)
    constant = ClusteredSample(pd.DataFrame({"label": LABELS, "probability": 0.5, "patient": PATIENTS}))
    rate = float((reference.probabilities[LABELS == 0] >= 0.5).mean())
    found, _ = matched_differences(constant, reference, 0.5, n_resamples=100)
    assert found.estimate == pytest.approx(rate - sensitivity_at(reference, rate), abs=1e-12)


def test_a_better_model_has_an_interval_above_zero() -> None:
    for found in matched_differences(sample(3.0, 1), sample(0.3, 2), 0.5):
        assert 0 < found.low < found.estimate < found.high < 1


def test_one_class_has_no_operating_point() -> None:
    found, _ = matched_differences(*(sample(1.0, seed, np.zeros_like(LABELS)) for seed in (1, 2)), 0.5, n_resamples=100)
    assert np.isnan(found.estimate)
    assert found.reason == "the studies are of one class"


def test_few_patients_have_no_interval() -> None:
    rows = pd.DataFrame({"label": [0, 1] * 4, "probability": np.linspace(0, 1, 8), "patient": range(8)})
    one = ClusteredSample(rows)
    found, _ = matched_differences(one, one, 0.5, n_resamples=100)
    assert (found.estimate, found.reason) == (0, "8 patients are too few for an interval (at least 10)")


@pytest.mark.parametrize(("label", "kind"), [(0, "abnormal"), (1, "normal")])
def test_few_patients_of_one_class_have_no_interval(label: int, kind: str) -> None:
    rows = pd.DataFrame({"label": label, "probability": np.linspace(0, 1, 100), "patient": range(100)})
    rows.loc[::33, "label"] = 1 - label
    one = ClusteredSample(rows)
    for found in matched_differences(one, one, 0.5, n_resamples=100):
        assert found.reason == f"4 patients with {kind} studies are too few for an interval (at least 10)"
