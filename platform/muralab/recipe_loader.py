"""Recipes by name: `recipes/<name>.py`, or an importable module outside the repository (`my_lab.wide_net`)."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from types import ModuleType

from muralab.errors import RecipeError, nearest
from muralab.recipe import Recipe


def recipe_names() -> list[str]:
    """List the modules in `recipes/`."""
    folder = importlib.import_module("recipes")
    return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))


def load_recipe(name: str) -> Recipe:
    """Load a recipe by its file name in `recipes/`, or by the dotted name of a module outside the repository.

    Raises:
        RecipeError: the module does not exist (the nearest name is suggested), fails to import, or defines no `RECIPE`.
    """
    recipe = getattr(_import_recipe(name), "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"The module '{name}' does not define a recipe: expected RECIPE = Recipe(...) at its end.")
    return recipe


def module_name(name: str) -> str:
    """The dotted name of a recipe's module."""
    return name if "." in name else f"recipes.{name}"


def _import_recipe(name: str) -> ModuleType:
    dotted, where = module_name(name), "the Python path" if "." in name else "recipes/"
    unknown = RecipeError(f"There is no recipe '{name}' in {where}. {nearest(name, recipe_names())}")
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise unknown
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name and not f"{dotted}.".startswith(f"{error.name}."):
            raise RecipeError(f"The recipe '{name}' imports '{error.name}', which is not installed.") from error
        raise unknown from error
    except Exception as error:
        at = traceback.format_tb(error.__traceback__)[-1].splitlines()[0].strip()
        raise RecipeError(f"The recipe '{name}' cannot be imported: {error} ({type(error).__name__}, {at}).") from error
