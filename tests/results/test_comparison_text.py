"""A comparison's sentence, which can be quoted, and its table."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from muralab.recipe import override
from muralab.recipe_loader import load_recipe
from muralab.report.sentences import number
from muralab.results.comparison_text import budget, comparison_sentence, difference_table, unpaired
from muralab.results.seed_comparison import compare_models, holm
from tests.results.conftest import RECIPES, simulate, trained


def dataset(*, synthetic: bool = True) -> SimpleNamespace:
    (model,) = simulate(np.random.default_rng(0), [0.0], 60)
    return SimpleNamespace(part="wrist", synthetic=synthetic, tables={"test": model.test})


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
    assert "(95%, only patients resampled), higher: both intervals exclude 0. 2 seeds are too few for an" in sentence
    assert "paired difference +0." in sentence


def test_more_seeds_are_resampled_too():
    skills = {(name, seed): skill for name, skill in (("cnn", 0.3), ("cnn_attention", 1.6)) for seed in range(5)}
    (found,) = compare_models(*trained(skills), [*RECIPES])
    sentence = comparison_sentence(found, RECIPES, dataset())
    assert sentence.endswith("(95%, patients and seeds resampled), higher: the interval excludes 0.")


def test_two_seeds_that_disagree_are_not_resolved():
    skills = {("cnn", 0): 0.3, ("cnn", 1): 1.5, ("cnn_attention", 0): 1.5, ("cnn_attention", 1): 0.3}
    (found,) = compare_models(*trained(skills), [*RECIPES])
    assert "which is not resolved: not every interval excludes 0." in comparison_sentence(found, RECIPES, dataset())


def test_folds_are_stated(better):
    sentence = comparison_sentence(better[0], RECIPES, dataset(), dataset())
    assert "over 2 seeds of 2 folds (each patient tested by models trained without them) and" in sentence


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
    assert "higher: the interval excludes 0. 1 seed is too few for an interval over seeds: this compares" in sentence


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
