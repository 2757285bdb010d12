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
from muralab.report.sentences import number
from muralab.results.seed_comparison import (
    budget,
    compare_models,
    comparison_sentence,
    difference_over_seeds,
    difference_table,
    holm,
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
    assert found.interval.estimate == pytest.approx(np.mean([own.estimate for own in found.by_seed]))
    assert found.mean_a - found.mean_b == pytest.approx(found.interval.estimate)
    assert found.interval.low > 0


def test_a_recipe_does_not_differ_from_itself(models):
    found = seeds_difference(models[:3], models[:3])
    assert (found.interval.low, found.interval.estimate, found.interval.high) == (0, 0, 0)


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_few_seeds_resample_patients_and_show_each_seed(models, n_seeds):
    found = seeds_difference(models[:n_seeds], models[3 : 3 + n_seeds])
    assert not found.covers_seeds
    for own, a, b in zip(found.by_seed, models, models[3:]):
        plain = paired_difference(a, b)
        assert own.estimate == plain.estimate
        assert (own.low, own.high) == pytest.approx((plain.low, plain.high), abs=0.02)
    assert found.interval.high - found.interval.low <= max(own.high - own.low for own in found.by_seed)


def test_an_interval_of_two_seeds_is_no_wider_than_one_of_three_that_agree(models):
    """By Student's distribution with one degree of freedom it would be wider than the metric's whole range."""
    two, three = (seeds_difference(models[:k], models[3 : 3 + k]).interval for k in (2, 3))
    assert two.high - two.low < 1.5 * (three.high - three.low)


def test_three_seeds_also_resample_seeds(models):
    assert seeds_difference(models[:3], models[3:]).covers_seeds


def test_p_is_where_the_interval_touches_zero():
    rng = np.random.default_rng(3)
    samples = [ClusteredSample(level_rows(m.test, level="study")) for m in simulate(rng, [0.75] * 3 + [0.6] * 3)]
    resampled = [resample(sample, ["auroc"]) for sample in samples]
    p = difference_over_seeds(resampled[:3], resampled[3:], "auroc").p
    for confidence, contains in ((1 - 1.02 * p, False), (1 - 0.98 * p, True)):
        found = difference_over_seeds(resampled[:3], resampled[3:], "auroc", confidence=confidence).interval
        assert (found.low <= 0 <= found.high) == contains


def test_equal_models_have_p_of_one(models):
    assert seeds_difference(models[:3], models[:3]).p == pytest.approx(1, abs=1e-5)
    assert seeds_difference(models[:2], models[:2]).p == pytest.approx(1, abs=1e-5)


def test_two_seeds_that_disagree_have_p_of_one(models):
    assert seeds_difference([models[0], models[3]], [models[3], models[0]]).p == 1


def test_two_seeds_have_the_p_of_the_less_clear_one(models):
    both = seeds_difference(models[1:3], models[3:5]).p
    assert both == max(seeds_difference([models[i]], [models[i + 2]]).p for i in (1, 2))


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04], [0.04]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holms_adjustment(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)


def test_an_undefined_p_counts_as_a_comparison():
    first, second = holm([np.nan, 0.02])
    assert np.isnan(first)
    assert second == pytest.approx(0.04)


def test_holms_adjustment_keeps_false_discoveries_below_five_per_cent():
    rng = np.random.default_rng(0)
    p = rng.random((4000, 3))  # three comparisons without any difference
    single = np.mean((p < 0.05).any(axis=1))
    adjusted = np.mean([min(holm(row.tolist())) < 0.05 for row in p])
    assert single > 0.12
    assert adjusted < 0.06


def test_one_seed_is_a_paired_difference_over_patients_only(models):
    found = seeds_difference(models[:1], models[3:4])
    plain = paired_difference(models[0], models[3])
    assert found.interval.estimate == plain.estimate
    assert found.interval.low == pytest.approx(plain.low, abs=0.02)
    assert np.isnan(found.seed_spread)


@pytest.mark.parametrize("n_seeds", [1, 2, 4])
def test_perfect_models_may_differ(n_seeds):
    perfect = simulate(np.random.default_rng(3), [20.0 + i for i in range(2 * n_seeds)], 40)
    found = seeds_difference(perfect[:n_seeds], perfect[n_seeds:])
    assert found.interval.estimate == 0
    assert found.interval.low < -0.005 < 0.005 < found.interval.high
    assert found.p == pytest.approx(1.0, abs=1e-3)


def test_too_few_patients_have_neither_interval_nor_p():
    few = simulate(np.random.default_rng(3), [2.0] * 4 + [0.1] * 4, 18)
    found = seeds_difference(few[:4], few[4:])
    assert np.isnan([found.interval.low, found.p]).all()
    assert found.interval.reason == "9 patients with abnormal studies are too few for an interval (at least 10)"


def test_few_patients_widen_the_interval():
    models = simulate(np.random.default_rng(3), [1.0, 0.6], 24)
    found = seeds_difference(models[:1], models[1:]).interval
    a, b = (model.resampled().values["auroc"] for model in models)
    low, high = np.nanquantile(a - b, (0.025, 0.975))
    assert 1.1 * (high - low) < found.high - found.low < 1.6 * (high - low)


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
    assert "with seed 0 and +0." in sentence
    assert "(95 %, only patients resampled), higher: both intervals exclude 0. This compares the trained" in sentence
    assert "paired difference +0." in sentence


def test_more_seeds_are_resampled_too():
    skills = {(name, seed): skill for name, skill in (("cnn", 0.3), ("cnn_attention", 1.6)) for seed in range(5)}
    (found,) = compare_models(*trained(skills), [*RECIPES])
    sentence = comparison_sentence(found, RECIPES, dataset())
    assert sentence.endswith("(95 %, patients and seeds resampled), higher: the interval excludes 0.")


def test_two_seeds_that_disagree_are_not_resolved():
    skills = {("cnn", 0): 0.3, ("cnn", 1): 1.5, ("cnn_attention", 0): 1.5, ("cnn_attention", 1): 0.3}
    (found,) = compare_models(*trained(skills), [*RECIPES])
    assert "which is not resolved: not every interval excludes 0." in comparison_sentence(found, RECIPES, dataset())


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
    assert "higher: the interval excludes 0. This compares the trained models, not the recipes" in sentence


# Several comparisons

THREE = {**RECIPES, "inception": override(load_recipe("inception"), {"image_size": 80})}


def compare_three(skills: tuple[float, float, float]):
    """Five seeds of each recipe, the second and the third compared with the first."""
    found = {(name, seed): skill for name, skill in zip(THREE, skills) for seed in range(5)}
    return compare_models(*trained(found), [*THREE])


def test_several_comparisons_are_adjusted():
    one, other = compare_three((0.3, 1.6, 0.3))
    assert one.n_comparisons == other.n_comparisons == 2
    for metric in ("auroc", "kappa"):
        alone = [found.differences[metric].p for found in (one, other)]
        assert [found.adjusted_p[metric] for found in (one, other)] == holm(alone)
    assert one.adjusted_p["auroc"] < 0.05
    text = f"higher: p = {number(one.adjusted_p['auroc'])} after Holm's adjustment for 2 comparisons."
    assert text in comparison_sentence(one, THREE, dataset())
    assert "which is not resolved: p = " in comparison_sentence(other, THREE, dataset())


def test_what_holds_alone_may_not_hold_after_adjustment(better):
    (found,) = better
    several = replace(found, n_comparisons=3, adjusted_p={"auroc": 0.06, "kappa": 0.5})
    assert "which is not resolved: p = 0.060 after Holm's" in comparison_sentence(several, RECIPES, dataset())


def test_the_table_holds_p_before_and_after_adjustment():
    table = difference_table(compare_three((0.3, 1.6, 0.3))).set_index(["recipe", "metric"])
    assert (table["comparisons"] == 2).all()
    assert (table["adjusted_p"] >= table["p"]).all()
    assert set(table["resampled"]) == {"patients and seeds"}


# Sentences and tables


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
