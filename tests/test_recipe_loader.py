"""Recipes found by name, and the errors of those that cannot be loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muralab.errors import RecipeError
from muralab.recipe_loader import load_recipe, recipe_names


def write_module(lab: Path, name: str, text: str) -> str:
    (lab / "tiny_lab" / f"{name}.py").write_text(text)
    sys.modules.pop(f"tiny_lab.{name}", None)
    return f"tiny_lab.{name}"


def test_recipe_names_are_the_modules_in_recipes() -> None:
    assert {"cnn", "cnn_attention", "inception", "inception_add_gate"} <= set(recipe_names())


def test_an_unknown_recipe_is_reported_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe 'cnnn' in recipes/. Did you mean 'cnn'\?"):
        load_recipe("cnnn")


def test_a_module_without_a_recipe_is_reported(lab: Path) -> None:
    name = write_module(lab, "empty_net", "RECIPE = 3\n")
    with pytest.raises(RecipeError, match=r"'tiny_lab.empty_net' does not define a recipe: expected RECIPE = Recipe"):
        load_recipe(name)


def test_a_missing_dependency_is_reported(lab: Path) -> None:
    name = write_module(lab, "needy_net", "import torch_of_another_kind\n")
    with pytest.raises(RecipeError, match=r"imports 'torch_of_another_kind', which is not installed"):
        load_recipe(name)


@pytest.mark.parametrize("text", ["def build(:\n", "1 / 0\n", "from torch import no_such_name\n"])
def test_a_failing_import_is_reported_with_its_line(lab: Path, text: str) -> None:
    name = write_module(lab, "broken_net", text)
    with pytest.raises(RecipeError, match=r"The recipe 'tiny_lab.broken_net' cannot be imported: .*line 1"):
        load_recipe(name)
