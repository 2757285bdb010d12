"""Paired differences: of the same rows only, with a width unless both models make the same predictions."""

from __future__ import annotations

import numpy as np
import pytest

from muralab.errors import DataError
from muralab.evaluation.intervals import ClusteredSample, metric_intervals, resample
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.paired_difference import check_same_images, difference_interval
from muralab.evaluation.predictions import level_rows
from tests.evaluation.conftest import simulate


def difference(a, b, metric="auroc", *, level="study", thresholds=(0.5, 0.5), n_resamples=300):
    """The paired difference of two tables."""
    samples = [ClusteredSample(level_rows(t, level=level), threshold=x) for t, x in zip((a, b), thresholds)]
    return difference_interval(*(resample(one, [metric], n_resamples=n_resamples) for one in samples), metric)


def test_a_model_does_not_differ_from_itself(predictions):
    for level in ("study", "image"):
        found = difference(predictions, predictions.sample(frac=1, random_state=0), level=level)
        assert (found.estimate, found.low, found.high) == (0, 0, 0)
        assert found.reason == "both make the same predictions"


@pytest.mark.parametrize("n_patients", [12, 60])
@pytest.mark.parametrize("metric", [name for name in METRICS if name != "ece"])
def test_two_perfect_models_may_differ(n_patients, metric):
    a = simulate(n_patients, 0).assign(label=lambda t: t["patient"] % 2, logit=lambda t: 8.0 * t["label"] - 4)
    b = a.assign(logit=a["logit"] * np.linspace(0.9, 1.1, len(a)))
    found = difference(a, b, metric)
    if n_patients == 12 and metric != "accuracy":
        assert "6 patients with " in found.reason
    else:
        assert found.low < -1e-4 < 1e-4 < found.high


def test_a_paired_difference_of_a_registered_metric_without_spread_is_unknown(predictions, resampled_metric):
    perfect = predictions.assign(logit=8.0 * predictions["label"] - 4)
    found = difference(perfect, perfect.assign(logit=perfect["logit"] * 2), resampled_metric)
    assert np.isnan(found.low)
    assert "do not differ on any patient" in found.reason


def test_a_paired_interval_is_narrower_than_that_of_one_model():
    a = simulate(150, 3)
    b = a.assign(logit=a["logit"] + np.random.default_rng(4).normal(0, 0.3, len(a)))
    pair = difference(a, b.sample(frac=1, random_state=1))
    alone = metric_intervals(a, level="study", metrics=["auroc"], n_resamples=300)["auroc"]
    assert pair.high - pair.low < (alone.high - alone.low) / 2
    assert pair.low <= pair.estimate <= pair.high


def test_a_difference_changes_its_sign_with_its_order():
    a, b = simulate(80, 3), simulate(80, 3).assign(logit=lambda t: -t["logit"])
    forth, back = difference(a, b, level="image"), difference(b, a, level="image")
    assert forth.estimate == -back.estimate > 0
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=0.02)


def test_each_model_of_a_pair_has_its_own_threshold(predictions):
    assert difference(predictions, predictions, "sensitivity", thresholds=(0.3, 0.7)).estimate > 0


def test_predictions_of_different_images_are_refused(predictions):
    with pytest.raises(DataError, match=r"different images: 2 have a prediction of one model only(.|\n)*1. i00000"):
        check_same_images(predictions, predictions.iloc[2:])


@pytest.mark.parametrize("column", ["label", "study", "patient"])
def test_predictions_that_disagree_are_refused(predictions, column):
    other = predictions.assign(**{column: "other"})
    with pytest.raises(DataError, match=f"disagree on the {column} of {len(other)} images"):
        check_same_images(predictions, other)


@pytest.mark.parametrize("metric", [name for name, one in METRICS.items() if one.no_interval is None])
def test_no_bound_of_a_difference_lies_beyond_what_is_possible(metric):
    """Two patients have 100 of 130 studies, so that hardly anything is known."""
    table = simulate(130, 0, n_studies=1)
    table = table.assign(label=np.arange(130) % 2, logit=2.0 * (np.arange(130) % 2) - 1)
    table["patient"] = np.where(np.arange(130) < 100, np.arange(130) % 2, np.arange(130))
    found = difference(table, table.assign(logit=table["logit"] * np.random.default_rng(0).normal(size=130)), metric)
    smallest, largest = METRICS[metric].limits
    assert smallest - largest <= found.low <= found.estimate <= found.high <= largest - smallest
