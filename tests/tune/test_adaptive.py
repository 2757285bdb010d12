"""Values chosen from what earlier trials reached: seeded, inside their ranges, and nearer to good trials."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from muralab.recipe_loader import load_recipe
from muralab.search_space import Choice, Uniform
from muralab.trial import TrialSpec
from muralab.tune import adaptive
from muralab.tune.adaptive import Observation, choose_values, observe

KEYS = ("full.lr", "augment.zoom")
OPTIMUM = (math.log(4e-4), 0.05)


def trial(number: int, drawn: Mapping[str, Any] | None = None, seed: int = 0) -> TrialSpec:
    folder = f"/sweep/cnn-{number:02d}"
    return TrialSpec(
        name=f"cnn-{number:02d}", recipe="cnn", table="", cache_folder="", folder=folder, draws=KEYS, seed=seed,
        drawn=drawn or {},
    )  # fmt: skip


def objective(values: Mapping[str, Any]) -> float:
    """Best at a rate of 4e-4 and a zoom of 0.05."""
    return -((math.log(values["full.lr"]) - OPTIMUM[0]) ** 2) - 25 * (values["augment.zoom"] - OPTIMUM[1]) ** 2


def search(n_trials: int, seed: int = 0) -> list[Observation]:
    """A search of a function, from its second trial on by choice."""
    found = [observe(replace(trial(0, seed=seed), draws=()), 0.0)]
    found = [replace(found[0], objective=objective(found[0].values))]
    for number in range(1, n_trials):
        spec = trial(number, seed=seed)
        spec = replace(spec, drawn=choose_values(spec, found))
        found.append(observe(spec, objective(spec.drawn)))
    return found


@pytest.fixture(scope="module")
def searched() -> list[Observation]:
    return search(16)


def test_the_same_trials_give_the_same_choice_in_whatever_order_they_ended(searched: list[Observation]) -> None:
    chosen = choose_values(trial(16), searched)
    assert chosen == choose_values(trial(16), searched[::-1])
    assert chosen != choose_values(trial(17), searched)
    assert chosen != choose_values(trial(16, seed=1), searched)


def test_values_are_in_range_and_can_be_typed_in_again(searched: list[Observation]) -> None:
    ranges = load_recipe("cnn").search
    for one in searched[1:]:
        assert all(ranges[key].contains(one.values[key]) for key in KEYS)
        assert all(float(f"{one.values[key]:.3g}") == one.values[key] for key in KEYS)


def test_later_choices_are_better_than_earlier_ones() -> None:
    reached = np.array([[one.objective for one in search(16, seed)] for seed in range(4)])
    assert np.median(reached[:, 9:]) > np.median(reached[:, 1:9]) + 0.3


def test_other_recipes_and_values_outside_the_ranges_teach_nothing(searched: list[Observation]) -> None:
    other = replace(searched[1], recipe="inception", objective=100.0)
    outside = replace(searched[1], trial="z", values={**searched[1].values, "full.lr": 9.0}, objective=100.0)
    assert choose_values(trial(16), [*searched, other, outside]) == choose_values(trial(16), searched)


def test_a_trial_that_diverged_counts_as_the_worst(searched: list[Observation]) -> None:
    diverged = [replace(one, objective=math.nan) if place == 5 else one for place, one in enumerate(searched)]
    lowest = min(one.objective for one in diverged if not math.isnan(one.objective))
    worst = [replace(one, objective=lowest) if place == 5 else one for place, one in enumerate(searched)]
    assert choose_values(trial(16), diverged) == choose_values(trial(16), worst)


def test_what_runs_is_taken_into_account(searched: list[Observation]) -> None:
    alone = choose_values(trial(16), searched)
    beside = choose_values(trial(16), searched, [trial(15, alone), trial(14)])
    assert beside != alone


def test_with_nothing_known_values_are_random() -> None:
    assert choose_values(trial(1), []) == choose_values(trial(1), [])
    assert choose_values(trial(1), []) != choose_values(trial(2), [])


def test_choices_are_chosen_from(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(load_recipe("cnn"), search={"batch_size": Choice(8, 16), "augment.zoom": Uniform(0.0, 0.4)})
    monkeypatch.setattr(adaptive, "load_recipe", lambda _: recipe)
    spec = replace(trial(1), draws=("batch_size",))
    found = [
        Observation(trial=f"cnn-{n:02d}", recipe="cnn", values={"batch_size": size}, objective=float(size == 16))
        for n, size in enumerate((8, 16) * 6)
    ]
    assert choose_values(spec, found) == {"batch_size": 16}


def test_observations_are_plain_values(searched: list[Observation]) -> None:
    assert Observation(**json.loads(json.dumps(asdict(searched[3])))) == searched[3]
