"""Differences of recipes over patients and seeds: intervals, sentence, table."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from muralab.errors import DataError, SettingsError
from muralab.evaluation.bootstrap import ClusteredSample, resample
from muralab.evaluation.evaluated_model import EvaluatedModel, paired_difference
from muralab.evaluation.predictions import level_rows
from muralab.recipe import override
from muralab.recipe_loader import load_recipe
from muralab.results.seed_comparison import (
    budget,
    compare_models,
    comparison_sentence,
    difference_over_seeds,
    difference_table,
    seeds_difference,
    stretch,
    unpaired,
)
from muralab.trial import TrialSpec

SHARED = {"image_size": 64, "upper.epochs": 1, "full.epochs": 2}
RECIPES = {name: override(load_recipe(name), SHARED) for name in ("cnn", "cnn_attention")}
BASE = TrialSpec(name="cnn-00", recipe="cnn", table="split.csv", cache_folder="cache", folder="trials/cnn-00")


def simulate(rng: np.random.Generator, skills: list[float], n_patients: int = 150) -> list[EvaluatedModel]:
    """Models on one image per patient; each patient is equally difficult for all of them."""
    label = np.arange(n_patients) % 2
    common = rng.normal(size=n_patients)
    names = [f"p{patient:04d}" for patient in range(n_patients)]
    table = pd.DataFrame({"image": names, "study": names, "patient": names, "part": "wrist", "label": label})
    noise = (0.7 * common + 0.7 * rng.normal(size=n_patients) for _ in skills)
    tests = (table.assign(logit=s * (2 * label - 1) + n) for s, n in zip(skills, noise))
    return [EvaluatedModel(recipe="net", title=f"Net {i}", run_id="r", test=test) for i, test in enumerate(tests)]


@pytest.fixture
def models() -> list[EvaluatedModel]:
    return simulate(np.random.default_rng(0), [0.9, 1.0, 1.1, 0.4, 0.3, 0.5])


def trained(skills: dict[tuple[str, int], float]) -> tuple[dict[str, EvaluatedModel], list[TrialSpec]]:
    """Models by trial, and the trials, from (recipe, seed) -> skill."""
    specs = [replace(BASE, recipe=recipe, seed=seed, name=f"{recipe}-seed{seed}") for recipe, seed in skills]
    models = [simulate(np.random.default_rng(spec.seed), [s], 60)[0] for spec, s in zip(specs, skills.values())]
    return {spec.name: model for spec, model in zip(specs, models)}, specs


@pytest.fixture
def better():
    """`cnn_attention` with three seeds, and `cnn` with one of them missing."""
    skills = {("cnn", 0): 0.3, ("cnn", 1): 0.4, **{("cnn_attention", seed): 1.6 for seed in (0, 1, 2)}}
    return compare_models(*trained(skills), ["cnn", "cnn_attention"])


def dataset(*, synthetic: bool = True) -> SimpleNamespace:
    (model,) = simulate(np.random.default_rng(0), [0.0], 60)
    return SimpleNamespace(part="wrist", synthetic=synthetic, tables={"test": model.test})


# Intervals


def test_the_estimate_is_the_mean_over_seeds(models):
    found = seeds_difference(models[:3], models[3:])
    assert found.interval.estimate == pytest.approx(np.mean(found.by_seed))
    assert found.mean_a - found.mean_b == pytest.approx(found.interval.estimate)
    assert found.interval.low > 0


def test_a_recipe_does_not_differ_from_itself(models):
    found = seeds_difference(models[:3], models[:3])
    assert (found.interval.low, found.interval.estimate, found.interval.high) == (0, 0, 0)


def test_one_seed_is_a_paired_difference_over_patients_only(models):
    found = seeds_difference(models[:1], models[3:4])
    plain = paired_difference(models[0], models[3])
    assert found.interval.estimate == plain.estimate
    assert found.interval.low == pytest.approx(plain.low, abs=0.02)
    assert np.isnan(found.seed_spread)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(1)
    steady, wild = simulate(rng, [0.8] * 5 + [0.7] * 5), simulate(rng, [0.2, 0.5, 0.8, 1.1, 1.4] + [0.7] * 5)
    widths = [i.high - i.low for i in (seeds_difference(m[:5], m[5:]).interval for m in (steady, wild))]
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize(("n_seeds", "t"), [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262), (30, 2.045)])
def test_the_stretch_follows_students_distribution(n_seeds, t):
    # Exact since Student's quantile comes from SciPy; an expansion used before was up to 1 % off from four seeds on.
    assert stretch(n_seeds) == pytest.approx(np.sqrt(n_seeds / (n_seeds - 1)) * t / 1.95996, rel=2e-4)


def test_the_stretch_of_many_seeds_is_one():
    assert stretch(10_000, 0.8) == pytest.approx(1, abs=1e-3)
    assert stretch(4, 0.8) == pytest.approx(np.sqrt(4 / 3) * stats.t.ppf(0.9, 3) / stats.norm.ppf(0.9))


def test_unequal_numbers_of_seeds_are_refused(models):
    with pytest.raises(SettingsError, match="same seeds, at least one; got 2 and 3 models"):
        seeds_difference(models[:2], models[3:])


def test_different_test_sets_are_refused(models):
    shorter = replace(models[3], test=models[3].test.head(100))
    with pytest.raises(DataError, match="evaluated on different images"):
        seeds_difference(models[:1], [shorter])


def test_one_class_gives_no_interval_and_a_reason(models):
    normal = [replace(m, test=m.test[m.test["label"] == 0]) for m in models]
    found = seeds_difference(normal[:3], normal[3:])
    assert np.isnan(found.interval.low)
    assert "are normal" in found.interval.reason


@pytest.mark.slow
def test_the_interval_contains_the_truth_as_often_as_stated():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(60):
        models = simulate(rng, [*rng.normal(0.7, 0.15, 10)])
        samples = [ClusteredSample(level_rows(model.test, level="study")) for model in models]
        resampled = [resample(sample, ["auroc"], n_resamples=200) for sample in samples]
        found = difference_over_seeds(resampled[:5], resampled[5:], "auroc").interval
        held += found.low <= 0 <= found.high
    assert held / 60 >= 0.9


# Comparisons


def test_only_seeds_that_both_have_are_paired(better):
    (found,) = better
    assert (found.recipe, found.against, found.seeds) == ("cnn_attention", "cnn", (0, 1))


def test_no_common_seed_gives_no_comparison():
    models, specs = trained({("cnn", 0): 1.0, ("cnn_attention", 1): 1.0})
    assert compare_models(models, specs, [*RECIPES]) == []


def test_a_recipe_that_failed_is_named_and_the_others_are_compared():
    models, specs = trained({("cnn", 0): 1.0, ("cnn", 1): 1.0, ("cnn_attention", 1): 1.0})
    names = ["cnn", "my_lab.bad", "cnn_attention"]
    (found,) = compared = compare_models(models, specs, names)
    assert (found.recipe, found.seeds) == ("cnn_attention", (1,))
    assert unpaired(compared, names, {"my_lab.bad-seed0": "Traceback\nRuntimeError: no such shape."}) == [
        "my_lab.bad is not compared: it has no finished seed in common with cnn; the first failure: "
        "RuntimeError: no such shape."
    ]


def test_the_sentence_can_be_quoted_alone(better):
    sentence = comparison_sentence(better[0], RECIPES, dataset())
    start = "On 60 test studies of 60 patients (wrist, SYNTHETIC demo data), over 2 seeds of one split"
    assert sentence.startswith(start)
    assert "one budget (1 + 2 epochs at 64 px)" in sentence
    assert "patients and seeds resampled" in sentence
    assert "paired difference +0." in sentence


def test_real_data_are_not_called_synthetic(better):
    assert "SYNTHETIC" not in comparison_sentence(better[0], RECIPES, dataset(synthetic=False))


def test_no_difference_is_not_resolved():
    models, specs = trained({(name, seed): 0.7 for name in RECIPES for seed in (0, 1, 2)})
    (found,) = compare_models(models, specs, [*RECIPES])
    sentence = comparison_sentence(found, RECIPES, dataset())
    assert sentence.endswith("which is not resolved: the interval contains 0.")


def test_with_one_seed_only_patients_are_resampled():
    models, specs = trained({("cnn", 0): 0.2, ("cnn_attention", 0): 2.0})
    (found,) = compare_models(models, specs, [*RECIPES])
    sentence = comparison_sentence(found, RECIPES, dataset())
    assert "only patients resampled: one seed" in sentence
    assert sentence.endswith("higher: the interval excludes 0.")


def test_the_table_names_level_set_and_every_seed(better):
    table = difference_table(better)
    assert set(table["metric"]) == {"auroc", "kappa"}
    assert set(table["level"] + " " + table["set"]) == {"study test"}
    row = table.iloc[0]
    assert row["difference"] == pytest.approx((row["seed_0"] + row["seed_1"]) / 2)


def test_recipes_with_budgets_of_their_own_are_listed():
    longer = {**RECIPES, "cnn": override(RECIPES["cnn"], {"full.epochs": 9})}
    assert budget(longer) == (
        "each recipe's own budget (cnn: 1 + 9 epochs at 64 px; cnn_attention: 1 + 2 epochs at 64 px)"
    )
