"""Differences of recipes over patients and seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.errors import DataError, SettingsError
from muralab.evaluation.bootstrap import paired_difference
from muralab.results.seed_comparison import Scored, seeds_difference, stretch


def simulate(rng: np.random.Generator, skills: list[float], n_patients: int = 150) -> list[Scored]:
    """One image a patient; all models share the patients' own difficulty."""
    label = np.arange(n_patients) % 2
    common = rng.normal(size=n_patients)
    names = [f"p{patient:04d}" for patient in range(n_patients)]
    table = pd.DataFrame({"image": names, "study": names, "patient": names, "part": "wrist", "label": label})
    noise = (0.7 * common + 0.7 * rng.normal(size=n_patients) for _ in skills)
    return [Scored(predictions=table.assign(logit=s * (2 * label - 1) + n)) for s, n in zip(skills, noise)]


@pytest.fixture
def models() -> list[Scored]:
    return simulate(np.random.default_rng(0), [0.9, 1.0, 1.1, 0.4, 0.3, 0.5])


def test_the_estimate_is_the_mean_over_seeds(models):
    found = seeds_difference(models[:3], models[3:])
    assert found.interval.estimate == pytest.approx(np.mean(found.by_seed))
    assert found.mean_a - found.mean_b == pytest.approx(found.interval.estimate)
    assert found.interval.low > 0


def test_a_recipe_does_not_differ_from_itself(models):
    found = seeds_difference(models[:3], models[:3])
    assert (found.interval.low, found.interval.estimate, found.interval.high) == (0, 0, 0)


def test_one_seed_is_a_paired_difference_of_patients_alone(models):
    found = seeds_difference(models[:1], models[3:4])
    plain = paired_difference(models[0].predictions, models[3].predictions, level="study", metric="auroc")
    assert found.interval.estimate == plain.estimate
    assert found.interval.low == pytest.approx(plain.low, abs=0.02)
    assert np.isnan(found.seed_spread)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(1)
    steady, wild = simulate(rng, [0.8] * 5 + [0.7] * 5), simulate(rng, [0.2, 0.5, 0.8, 1.1, 1.4] + [0.7] * 5)
    widths = [i.high - i.low for i in (seeds_difference(m[:5], m[5:]).interval for m in (steady, wild))]
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize(("n_seeds", "t"), [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262), (30, 2.045)])
def test_the_stretch_is_students(n_seeds, t):
    assert stretch(n_seeds) == pytest.approx(np.sqrt(n_seeds / (n_seeds - 1)) * t / 1.95996, rel=0.01)


def test_unequal_numbers_of_seeds_are_refused(models):
    with pytest.raises(SettingsError, match="same seeds, at least one; got 2 and 3 models"):
        seeds_difference(models[:2], models[3:])


def test_different_test_sets_are_refused(models):
    shorter = Scored(predictions=models[3].predictions.head(100))
    with pytest.raises(DataError, match="judged on different images"):
        seeds_difference(models[:1], [shorter])


def test_one_class_gives_no_interval_and_a_reason(models):
    normal = [Scored(predictions=m.predictions[m.predictions["label"] == 0]) for m in models]
    found = seeds_difference(normal[:3], normal[3:])
    assert np.isnan(found.interval.low)
    assert "are normal" in found.interval.reason


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(60):
        models = simulate(rng, [*rng.normal(0.7, 0.15, 10)])
        found = seeds_difference(models[:5], models[5:], n_resamples=200).interval
        held += found.low <= 0 <= found.high
    assert held / 60 >= 0.9
