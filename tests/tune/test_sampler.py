"""Draws: the same key, seed and number give the same quantile, and draws are spread evenly."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from muralab.recipe import Choice, Recipe, Uniform
from muralab.recipe_loader import load_recipe
from muralab.report.references import STUDY_TITLES
from muralab.tune.sampler import SOBOL_DIMENSIONS, SOBOL_KEYS, draw_quantiles, draw_values

SEED = 3
OWN_KEYS = ("model.width", "model.filters", "clip_norm")
"""Keys without a dimension of the joint sequence."""
both_searches = pytest.mark.parametrize("search", ["quasi", "random"])


def draw(recipe: Recipe, n_trials: int = 6, search: str = "quasi", **fixed: Any) -> list[dict[str, Any]]:
    changed = {key.replace("__", "."): value for key, value in fixed.items()}
    return draw_values(recipe, n_trials, seed=SEED, fixed=changed, search=search)


@both_searches
def test_trial_one_has_the_same_rate_in_twin_recipes(search: str) -> None:
    twins = [draw(load_recipe(name), search=search) for name in ("inception", "inception_add_gate")]
    assert twins[0] == twins[1]
    rates = [values["full.lr"] for values in twins[0][1:]]
    assert len(set(rates)) == len(rates)


@both_searches
def test_recipes_with_different_ranges_share_the_quantile(search: str) -> None:
    quantiles = {}
    for name in STUDY_TITLES:
        recipe = load_recipe(name)
        low, high = np.log([recipe.search["full.lr"].low, recipe.search["full.lr"].high])
        quantiles[name] = [(np.log(one["full.lr"]) - low) / (high - low) for one in draw(recipe, search=search)[1:]]
    for found in quantiles.values():
        np.testing.assert_allclose(found, draw_quantiles("full.lr", 5, seed=SEED, search=search), atol=2e-3)


@both_searches
def test_other_keys_and_what_the_user_fixes_change_no_draw(search: str) -> None:
    recipe = load_recipe("inception")
    more = replace(recipe, search={"model.width": Choice(64, 128), **recipe.search, "augment.noise": Uniform(0, 1)})
    whole = draw(recipe, search=search)
    fixed = draw(recipe, search=search, full__lr=1e-3, augment__shift=0.0)
    for one, other, rest in zip(whole, draw(more, search=search), fixed):
        assert one.items() <= other.items()
        assert rest.items() <= one.items()
        assert not {"full.lr", "augment.shift"} & set(rest)


@both_searches
@pytest.mark.parametrize("key", [*SOBOL_KEYS[:3], *OWN_KEYS])
def test_more_trials_extend_the_draws(search: str, key: str) -> None:
    many = draw_quantiles(key, 70, seed=SEED, search=search)
    assert ((many >= 0) & (many < 1)).all()
    for n in (0, 1, 2, 3, 7, 8, 33):
        np.testing.assert_array_equal(draw_quantiles(key, n, seed=SEED, search=search), many[:n])


@both_searches
def test_seeds_and_keys_have_draws_of_their_own(search: str) -> None:
    found = {
        tuple(draw_quantiles(key, 4, seed=seed, search=search)) for key in (*SOBOL_KEYS, *OWN_KEYS) for seed in (0, 1)
    }
    assert len(found) == 2 * (len(SOBOL_KEYS) + len(OWN_KEYS))


@pytest.mark.parametrize("key", [*SOBOL_KEYS, *OWN_KEYS])
def test_sobol_puts_one_of_eight_draws_into_each_eighth(key: str) -> None:
    for seed in range(10):
        eighths = (draw_quantiles(key, 8, seed=seed, search="quasi") * 8).astype(int)
        assert sorted(eighths) == list(range(8))


def test_no_two_keys_move_in_step() -> None:
    """Two one-dimensional sequences would fill only half of the quarters of the plane, for every seed."""
    for one, other in combinations((*SOBOL_KEYS[:5], *OWN_KEYS), 2):
        quarters = []
        for seed in range(40):
            a, b = (draw_quantiles(key, 16, seed=seed, search="quasi") >= 0.5 for key in (one, other))
            quarters.append(len(set(zip(a, b))))
        assert np.mean(quarters) > 3.8, (one, other)


def test_the_joint_sequence_covers_the_space_better_than_random_draws() -> None:
    from scipy.stats import qmc

    def discrepancy(search: str, seed: int) -> float:
        draws = [draw_quantiles(key, 15, seed=seed, search=search) for key in SOBOL_KEYS[:4]]
        return float(qmc.discrepancy(np.stack(draws, axis=1)))

    random, sobol = (np.mean([discrepancy(search, seed) for seed in range(20)]) for search in ("random", "quasi"))
    assert sobol < random / 2


def test_random_draws_are_uniform() -> None:
    draws = draw_quantiles("full.lr", 2000, seed=SEED, search="random")
    np.testing.assert_allclose(np.histogram(draws, bins=4, range=(0, 1))[0], 500, rtol=0.15)


def test_the_draws_of_a_seed_are_pinned() -> None:
    """Another version of the platform or of scipy must not silently try other values."""
    found = {
        key: draw_quantiles(key, 3, seed=0, search="quasi").round(4).tolist()
        for key in ("augment.shift", "model.width")
    }
    assert found == {"augment.shift": [0.6638, 0.4394, 0.9626], "model.width": [0.9947, 0.3394, 0.5253]}


def test_the_joint_sequence_has_a_dimension_for_each_of_its_keys() -> None:
    assert len(set(SOBOL_KEYS)) == len(SOBOL_KEYS) <= SOBOL_DIMENSIONS
    searched = {key for name in STUDY_TITLES for key in load_recipe(name).search}
    assert searched <= set(SOBOL_KEYS), "the shipped recipes' keys share the joint sequence"


def test_a_choice_takes_every_value_equally_often() -> None:
    recipe = replace(load_recipe("cnn"), search={"batch_size": Choice(8, 16, 32, 64)})
    sizes = [values["batch_size"] for values in draw(recipe, 17)[1:]]
    assert [sizes.count(size) for size in (8, 16, 32, 64)] == [4, 4, 4, 4]
