"""Values of a recipe by key, overrides, and recipes that are refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muralab.config.training_options import SET_HELP
from muralab.errors import RecipeError
from muralab.recipe import Choice, Recipe, Uniform, override, resolved_values
from muralab.recipe_loader import load_recipe, recipe_names

SMALL = "tiny_lab.small_net"


def small(**changes: Any) -> Recipe:
    return override(load_recipe(SMALL), changes)


@pytest.fixture(autouse=True)
def _lab(lab: Path) -> None:
    """Put the small recipe on the Python path."""


# Overrides


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("full.lr", "3e-5", 3e-5),
        ("full.lr", 1, 1.0),
        ("full.epochs", "4", 4),
        ("full.epochs", 4.0, 4),
        ("augment.flip", "Yes", True),
        ("augment.zoom", "0", 0.0),
        ("class_weighting", "0", False),
        ("full.schedule", "constant", "constant"),
        ("model.filters", "16", 16),
        ("image_size", "64", 64),
        ("upper.trains", "head.*|backbone.0.*", "head.*|backbone.0.*"),
    ],
)
def test_an_override_is_parsed_as_the_type_of_the_old_value(key: str, text: Any, value: Any) -> None:
    found = resolved_values(small(**{key: text}))[key]
    assert (found, type(found)) == (value, type(value))


def test_only_the_overridden_values_change() -> None:
    before, after = resolved_values(small()), resolved_values(small(**{"full.lr": 0.5, "model.filters": 2}))
    assert {key for key in before if before[key] != after[key]} == {"full.lr", "model.filters"}


def test_override_does_not_modify_the_recipe() -> None:
    recipe = load_recipe(SMALL)
    before = resolved_values(recipe)
    override(recipe, {"model.filters": 99, "full.lr": 0.5})
    assert resolved_values(recipe) == before


@pytest.mark.parametrize("name", [SMALL, *recipe_names()])
def test_resolved_values_as_text_reproduce_the_recipe(name: str) -> None:
    recipe = load_recipe(name)
    assert override(recipe, {key: str(value) for key, value in resolved_values(recipe).items()}) == recipe


def test_an_unknown_key_is_reported_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"^unknown key 'full.lr.x'. Did you mean 'full.lr'\?$"):
        small(**{"full.lr.x": 1})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("full.learning_rate", "'full.lr'"),
        ("lr", "'full.lr' or 'upper.lr'"),
        ("learning_rate", "'full.lr' or 'upper.lr'"),
        ("zoom", "'augment.zoom'"),
        ("augment.rotate", "'augment.rotate_degrees'"),
    ],
)
def test_a_key_that_is_written_out_or_lacks_its_group_is_recognised(key: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=rf"^unknown key '{key}'. Did you mean {meant}\?$"):
        small(**{key: 1})


def test_the_help_of_set_lists_every_key() -> None:
    words = set(re.findall(r"[\w]+", SET_HELP))
    keys = [key for key in resolved_values(small()) if not key.startswith("model.")]
    assert [key for key in keys if not set(key.split(".")) <= words] == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "fast", "", "1,5"])
def test_a_rate_that_is_not_a_finite_number_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match=rf"full.lr={value}: expected a number"):
        small(**{"full.lr": value})


@pytest.mark.parametrize("value", ["nan", "inf", "1.5", "two"])
def test_a_count_that_is_not_an_integer_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match=rf"full.epochs={value}: expected a whole number"):
        small(**{"full.epochs": value})


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'ful.lr'.*; full.epochs=x: expected a whole number"):
        small(**{"ful.lr": 1, "full.epochs": "x"})


@given(st.text(max_size=12), st.sampled_from(["full.lr", "full.epochs", "augment.flip", "full.schedule", "image_size"]))
def test_any_text_is_parsed_or_refused_with_a_recipe_error(text: str, key: str) -> None:
    try:
        found = resolved_values(small(**{key: text}))[key]
    except RecipeError:
        return
    assert type(found) is type(resolved_values(small())[key])


@pytest.mark.parametrize("strength", ["gamma", "noise", "blur", "clahe", "cutout", "elastic"])
def test_every_strength_of_augmentation_can_be_searched_and_overridden(strength: str) -> None:
    key = f"augment.{strength}"
    recipe = replace(load_recipe(SMALL), search={key: Uniform(0.0, 1.0)})
    value = recipe.search[key].value_at(0.6)
    assert getattr(override(recipe, {key: value}).augment, strength) == value


def test_values_stored_before_a_strength_existed_can_still_be_applied() -> None:
    stored = {key: str(value) for key, value in resolved_values(small()).items() if key != "augment.gamma"}
    assert override(load_recipe(SMALL), stored) == small()


# Values of `model`


def build(*, image_size: int, width: int = 4, deep: bool = False, layer: object = None, depth: int) -> Any:
    raise NotImplementedError


def test_model_values_are_the_keyword_defaults_of_build() -> None:
    assert replace(load_recipe(SMALL), build=build, model={}).model == {"width": 4, "deep": False}


def test_an_explicit_model_value_takes_precedence() -> None:
    recipe = replace(load_recipe(SMALL), build=build, model={"width": 8, "depth": 2})
    assert recipe.model == {"width": 8, "deep": False, "depth": 2}


# Recipes that are refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 8}, "image_size=8: expected 32 to 4096 px"),
        ({"batch_size": 1}, "batch_size=1: expected 2 to 65536"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: expected at least 0 and below 1"),
        ({"feature_views": 0}, "feature_views=0: expected 1 or more"),
        ({"search": {"full.lrr": Uniform(0, 1)}}, "unknown search key 'full.lrr'. Did you mean 'full.lr'"),
        ({"demo": {"epochs": 1}}, "unknown demo key 'epochs'. Did you mean"),
        ({"model": {"filter": 1}}, "unknown model key 'filter'. Did you mean 'filters'"),
    ],
    ids=str,
)
def test_an_invalid_recipe_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        replace(load_recipe(SMALL), **fields)


@pytest.mark.parametrize("key", ["model.filters", "batch_size", "class_weighting"])
def test_only_numbers_with_fractions_are_searched_in_a_range(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"search key '{key}' is .*: search it with Choice"):
        replace(small(), search={key: Uniform(8, 32)})
    assert key in replace(small(), search={key: Choice(8, 32)}).search
