"""What a comparison says: pairs of seeds, the sentence, the table."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from muralab.commands.compare import with_seed
from muralab.recipe import override
from muralab.recipe_loader import load_recipe
from muralab.report import Entry
from muralab.results.statement import budget, compare_entries, difference_table, sentence, unpaired
from muralab.trial import TrialSpec

SHARED = {"image_size": 64, "upper.epochs": 1, "full.epochs": 2}
RECIPES = {name: override(load_recipe(name), SHARED) for name in ("cnn", "cnn_attention")}
BASE = TrialSpec(name="cnn-00", recipe="cnn", table="split.csv", cache_folder="cache", folder="trials/cnn-00")


def predictions(skill: float, seed: int) -> pd.DataFrame:
    noise = np.random.default_rng(seed).normal(size=60)
    names = [f"p{patient:03d}" for patient in range(60)]
    label = np.arange(60) % 2
    table = pd.DataFrame({"image": names, "study": names, "patient": names, "part": "wrist", "label": label})
    return table.assign(logit=skill * (2 * label - 1) + noise)


def trained(skills: dict[tuple[str, int], float]) -> tuple[dict[str, Entry], list[TrialSpec]]:
    specs = [with_seed(replace(BASE, recipe=recipe), seed) for recipe, seed in skills]
    entries = {
        spec.name: Entry(name=spec.name, title=spec.name, run_id="r", test=predictions(skill, spec.seed))
        for spec, skill in zip(specs, skills.values())
    }
    return entries, specs


@pytest.fixture
def better():
    """`cnn_attention` with three seeds, and `cnn` with one of them missing."""
    skills = {("cnn", 0): 0.3, ("cnn", 1): 0.4, **{("cnn_attention", seed): 1.6 for seed in (0, 1, 2)}}
    return compare_entries(*trained(skills), ["cnn", "cnn_attention"])


def dataset(*, synthetic: bool = True) -> SimpleNamespace:
    return SimpleNamespace(part="wrist", synthetic=synthetic, tables={"test": predictions(0, 0)})


def test_a_seed_names_its_trial_and_its_folder():
    spec = with_seed(BASE, 4)
    assert (spec.name, spec.seed, spec.folder) == ("cnn-seed4", 4, "trials/cnn-seed4")


def test_only_seeds_that_both_have_are_paired(better):
    (found,) = better
    assert (found.recipe, found.against, found.seeds) == ("cnn_attention", "cnn", (0, 1))


def test_the_sentence_can_be_quoted_alone(better):
    said = sentence(better[0], RECIPES, dataset())
    assert said.startswith("On 60 test studies of 60 patients (wrist, SYNTHETIC demo data), over 2 seeds of one split")
    assert "one budget (1 + 2 epochs at 64 px)" in said
    assert "patients and seeds resampled" in said
    assert "paired difference +0." in said


def test_real_data_are_not_called_synthetic(better):
    assert "SYNTHETIC" not in sentence(better[0], RECIPES, dataset(synthetic=False))


def test_no_difference_is_not_resolved():
    entries, specs = trained({(name, seed): 0.7 for name in RECIPES for seed in (0, 1, 2)})
    (found,) = compare_entries(entries, specs, [*RECIPES])
    assert sentence(found, RECIPES, dataset()).endswith("which is not resolved: the interval contains 0.")


def test_one_seed_says_that_seeds_were_not_resampled():
    entries, specs = trained({("cnn", 0): 0.2, ("cnn_attention", 0): 2.0})
    (found,) = compare_entries(entries, specs, [*RECIPES])
    said = sentence(found, RECIPES, dataset())
    assert "patients alone resampled: one seed" in said
    assert said.endswith("higher: the interval excludes 0.")


def test_the_table_names_level_set_and_every_seed(better):
    table = difference_table(better)
    assert set(table["metric"]) == {"auroc", "kappa"}
    assert set(table["level"] + " " + table["set"]) == {"study test"}
    row = table.iloc[0]
    assert row["difference"] == pytest.approx((row["seed_0"] + row["seed_1"]) / 2)


def test_recipes_with_budgets_of_their_own_are_told_apart():
    longer = {**RECIPES, "cnn": override(RECIPES["cnn"], {"full.epochs": 9})}
    assert budget(longer) == (
        "each recipe's own budget (cnn: 1 + 9 epochs at 64 px; cnn_attention: 1 + 2 epochs at 64 px)"
    )


def test_a_recipe_that_failed_is_named_and_the_others_are_compared():
    entries, specs = trained({("cnn", 0): 1.0, ("cnn", 1): 1.0, ("cnn_attention", 1): 1.0})
    names = ["cnn", "my_lab.bad", "cnn_attention"]
    (found,) = compared = compare_entries(entries, specs, names)
    assert (found.recipe, found.seeds) == ("cnn_attention", (1,))
    assert unpaired(compared, names, {"my_lab.bad-seed0": "Traceback\nRuntimeError: no such shape."}) == [
        "my_lab.bad is not compared: no seed of both it and cnn was trained to its end, the first failure: "
        "RuntimeError: no such shape."
    ]


def test_no_common_seed_leaves_no_comparison():
    entries, specs = trained({("cnn", 0): 1.0, ("cnn_attention", 1): 1.0})
    assert compare_entries(entries, specs, [*RECIPES]) == []
