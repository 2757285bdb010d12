"""Values of a recipe by their names, ranges that a search draws from, and recipes that are found or refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muralab.errors import RecipeError
from muralab.recipe import (
    Choice,
    LogUniform,
    Recipe,
    Uniform,
    load_recipe,
    override,
    read_source,
    recipe_names,
    resolved_values,
)

SMALL = "tiny_lab.small_net"


def small(**changes: Any) -> Recipe:
    return override(load_recipe(SMALL), changes)


@pytest.fixture(autouse=True)
def _lab(lab: Path) -> None:
    """The small recipe is on the path."""


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
def test_text_becomes_the_type_of_what_it_replaces(key: str, text: Any, value: Any) -> None:
    found = resolved_values(small(**{key: text}))[key]
    assert (found, type(found)) == (value, type(value))


def test_nothing_but_what_was_named_changes() -> None:
    before, after = resolved_values(small()), resolved_values(small(**{"full.lr": 0.5, "model.filters": 2}))
    assert {key for key in before if before[key] != after[key]} == {"full.lr", "model.filters"}


def test_the_recipe_itself_stays_as_it_is() -> None:
    recipe = load_recipe(SMALL)
    override(recipe, {"model.filters": 99, "full.lr": 0.5})
    assert resolved_values(recipe) == resolved_values(load_recipe(SMALL)) == resolved_values(small())


@pytest.mark.parametrize("name", [SMALL, *recipe_names()])
def test_resolved_values_make_the_recipe_again(name: str) -> None:
    recipe = load_recipe(name)
    assert override(recipe, {key: str(value) for key, value in resolved_values(recipe).items()}) == recipe


def test_a_name_of_two_dots_is_unknown_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"^'full.lr.x' names nothing. Did you mean 'full.lr'\?$"):
        small(**{"full.lr.x": 1})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "fast", "", "1,5"])
def test_a_rate_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match=rf"full.lr={value}: expected a number"):
        small(**{"full.lr": value})


@pytest.mark.parametrize("value", ["nan", "inf", "1.5", "two"])
def test_a_count_that_is_not_whole_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match=rf"full.epochs={value}: expected a whole number"):
        small(**{"full.epochs": value})


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(RecipeError, match=r"'ful.lr' names nothing.*; full.epochs=x: expected a whole number"):
        small(**{"ful.lr": 1, "full.epochs": "x"})


@given(st.text(max_size=12), st.sampled_from(["full.lr", "full.epochs", "augment.flip", "full.schedule", "image_size"]))
def test_any_text_is_read_or_refused_in_words(text: str, key: str) -> None:
    try:
        found = resolved_values(small(**{key: text}))[key]
    except RecipeError:
        return
    assert type(found) is type(resolved_values(small())[key])


# What a recipe refuses of its author


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image_size": 8}, "image_size=8: expected 32 to 4096 px"),
        ({"batch_size": 1}, "batch_size=1: expected 2 to 65536"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: expected 0 up to"),
        ({"feature_views": 0}, "feature_views=0: expected 1 or more"),
        ({"search": {"full.lrr": Uniform(0, 1)}}, "search key 'full.lrr' names nothing. Did you mean 'full.lr'"),
        ({"demo": {"epochs": 1}}, "demo key 'epochs' names nothing. Did you mean"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    from dataclasses import replace

    with pytest.raises(RecipeError, match=words):
        replace(load_recipe(SMALL), **fields)


# Ranges


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (2, 1), (1, 1), (float("nan"), 1)])
def test_a_logarithmic_range_needs_two_positive_ends(low: float, high: float) -> None:
    with pytest.raises(RecipeError, match=r"expected 0 < low < high"):
        LogUniform(low, high)


def test_a_range_needs_two_ends_and_a_choice_a_value() -> None:
    with pytest.raises(RecipeError, match=r"expected low < high"):
        Uniform(1, 1)
    with pytest.raises(RecipeError, match="at least one value"):
        Choice()


@given(st.integers(0, 2**32 - 1))
def test_draws_lie_in_their_range_and_can_be_typed_again(seed: int) -> None:
    for space in (LogUniform(1e-5, 1e-3), Uniform(0.0, 0.1)):
        value = space.draw(np.random.default_rng(seed))
        assert space.low <= value <= space.high
        assert float(f"{value:g}") == value
    assert Choice("a", "b").draw(np.random.default_rng(seed)) in ("a", "b")


def test_a_logarithmic_draw_is_even_over_the_decades() -> None:
    rng = np.random.default_rng(0)
    draws = np.log10([LogUniform(1e-6, 1e-2).draw(rng) for _ in range(2000)])
    np.testing.assert_allclose(np.histogram(draws, bins=4, range=(-6, -2))[0], 500, rtol=0.15)


# Finding one


def write_module(lab: Path, name: str, text: str) -> str:
    (lab / "tiny_lab" / f"{name}.py").write_text(text)
    sys.modules.pop(f"tiny_lab.{name}", None)
    return f"tiny_lab.{name}"


def test_a_module_without_a_recipe_is_named(lab: Path) -> None:
    name = write_module(lab, "empty_net", "RECIPE = 3\n")
    with pytest.raises(RecipeError, match=r"'tiny_lab.empty_net' holds no recipe: expected a line RECIPE = Recipe"):
        load_recipe(name)


def test_an_import_that_is_not_installed_is_named(lab: Path) -> None:
    name = write_module(lab, "needy_net", "import torch_of_another_kind\n")
    with pytest.raises(RecipeError, match=r"imports 'torch_of_another_kind', which is not installed"):
        load_recipe(name)


@pytest.mark.parametrize("text", ["def build(:\n", "1 / 0\n", "from torch import no_such_name\n"])
def test_a_recipe_that_does_not_import_is_named_with_its_line(lab: Path, text: str) -> None:
    name = write_module(lab, "broken_net", text)
    with pytest.raises(RecipeError, match=r"The recipe 'tiny_lab.broken_net' cannot be imported: .*line 1"):
        load_recipe(name)


def test_the_source_is_what_the_file_holds(lab: Path) -> None:
    assert read_source(SMALL) == (lab / "tiny_lab" / "small_net.py").read_text("utf-8")
    assert "RECIPE = Recipe(" in read_source("cnn")
