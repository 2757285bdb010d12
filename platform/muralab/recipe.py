"""What a recipe is, how one is found by its name, and how its values are overridden.

A recipe is one module, `recipes/<name>.py` or an importable one outside the repository (`my_lab.wide_net`), that ends
with `RECIPE = Recipe(...)`. It imports this module and torch/timm, nothing else of the platform.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from muralab.data.augment import Augment
from muralab.errors import RecipeError, nearest
from muralab.training.network import Network
from muralab.training.phases import EVERYTHING, HEAD_ONLY, Phase

__all__ = [
    "EVERYTHING",
    "HEAD_ONLY",
    "Augment",
    "Choice",
    "LogUniform",
    "Network",
    "Phase",
    "Recipe",
    "Uniform",
    "load_recipe",
    "override",
    "recipe_names",
    "resolved_values",
]

Value = float | int | bool | str


@dataclass(frozen=True)
class LogUniform:
    """A positive number, uniform in its logarithm."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise RecipeError(f"LogUniform({self.low}, {self.high}): expected 0 < low < high.")

    def draw(self, rng: np.random.Generator) -> float:
        """One value, to three significant digits so that it can be typed again."""
        return float(f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.3g}")


@dataclass(frozen=True)
class Uniform:
    """A number between two others."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RecipeError(f"Uniform({self.low}, {self.high}): expected low < high.")

    def draw(self, rng: np.random.Generator) -> float:
        """One value, to three significant digits."""
        return float(f"{rng.uniform(self.low, self.high):.3g}")


class Choice:
    """One of several values."""

    def __init__(self, *values: Value) -> None:
        if not values:
            raise RecipeError("Choice(): expected at least one value.")
        self.values = values

    def draw(self, rng: np.random.Generator) -> Value:
        """One value, each as likely."""
        return self.values[int(rng.integers(len(self.values)))]


Space = LogUniform | Uniform | Choice


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An architecture with its schedule, its augmentation, and what a search may change."""

    build: Callable[..., Network]
    """`build(**model)` -> Network with random weights, at any image size from 75 px."""
    summary: str
    """The architecture in a few words, for tables."""
    image_size: int
    """Side of the square in px."""
    batch_size: int
    upper: Phase
    """The first phase: the head over a frozen backbone, or a warm-up of a network from scratch."""
    full: Phase
    """The second phase: everything."""
    augment: Augment
    """Strengths; the upper phase uses these as they are, a search changes those of the full phase."""
    search: Mapping[str, Space]
    """Override key -> the range that a sweep draws from."""
    model: Mapping[str, Value] = field(default_factory=dict)
    """Arguments of `build`, overridden as `model.<name>`."""
    pretrained: str = ""
    """timm's name of the backbone with its ImageNet weights' tag; empty for a network from scratch."""
    registers: bool = False
    """Whether the best model of this recipe is the one that a sweep registers for serving."""
    ema_decay: float = 0.99
    clip_norm: float = 1.0
    class_weighting: bool = True
    compile: bool = False
    """Compile the whole network's steps: minutes at the start of each trial, for faster ones after it."""
    feature_views: int = 6
    """Augmented views whose features are kept for the upper phase of a frozen backbone."""
    demo: Mapping[str, Value] = field(default_factory=dict)
    """Overrides that let a sweep of the demo data end in minutes on two CPU cores."""

    def __post_init__(self) -> None:
        checks = [
            (32 <= self.image_size <= 4096, f"image_size={self.image_size}: expected 32 to 4096 px"),
            (2 <= self.batch_size <= 65536, f"batch_size={self.batch_size}: expected 2 to 65536"),
            (0 <= self.ema_decay < 1, f"ema_decay={self.ema_decay}: expected 0 up to, not including, 1"),
            (self.clip_norm >= 0, f"clip_norm={self.clip_norm}: expected 0 or more"),
            (self.feature_views >= 1, f"feature_views={self.feature_views}: expected 1 or more"),
        ]
        wrong = [text for right, text in checks if not right]
        known = set(resolved_values(self))
        wrong += [f"search key '{k}' names nothing. {nearest(k, known)}" for k in self.search if k not in known]
        wrong += [f"demo key '{k}' names nothing. {nearest(k, known)}" for k in self.demo if k not in known]
        if wrong:
            raise RecipeError("; ".join(wrong))

    @property
    def phases(self) -> dict[str, Phase]:
        """Name -> phase, in order."""
        return {"upper": self.upper, "full": self.full}


PLAIN_KEYS = ("image_size", "batch_size", "ema_decay", "clip_norm", "class_weighting", "compile", "feature_views")
GROUPS = ("upper", "full", "augment")
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def resolved_values(recipe: Recipe) -> dict[str, Value]:
    """Every value that can be overridden, flat: `full.lr`, `augment.zoom`, `model.width`, `image_size` ..."""
    values: dict[str, Any] = {key: getattr(recipe, key) for key in PLAIN_KEYS}
    values |= {key: float(values[key]) for key in ("ema_decay", "clip_norm")}
    for group in GROUPS:
        spec = getattr(recipe, group)
        # By the declared type: a rate written as 1 is still a float, and may become 0.5.
        values |= {
            f"{group}.{f.name}": float(value) if f.type == "float" else value
            for f in dataclasses.fields(spec)
            for value in [getattr(spec, f.name)]
        }
    values |= {f"model.{key}": value for key, value in recipe.model.items()}
    return {key: "|".join(value) if isinstance(value, tuple) else value for key, value in values.items()}


def override(recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    """The recipe with some values changed; text is read as the type of the value that it replaces.

    Raises:
        RecipeError: a key names nothing (with the nearest that does), or a value cannot be read or is out of range.
    """
    known = resolved_values(recipe)
    problems = [f"'{key}' names nothing. {nearest(key, known)}" for key in changes if key not in known]
    typed: dict[str, Any] = {}
    for key in [key for key in changes if key in known]:
        try:
            typed[key] = _typed(changes[key], known[key])
        except (ValueError, OverflowError, KeyError):
            problems.append(f"{key}={changes[key]}: expected {KINDS[type(known[key])]}")
    if problems:
        raise RecipeError("; ".join(problems))
    fields: dict[str, Any] = {key: typed[key] for key in PLAIN_KEYS if key in typed}
    for group in GROUPS:
        part = {key.split(".", 1)[1]: value for key, value in typed.items() if key.startswith(f"{group}.")}
        if "trains" in part:
            part["trains"] = tuple(part["trains"].split("|"))
        fields[group] = dataclasses.replace(getattr(recipe, group), **part)
    model = {key.split(".", 1)[1]: value for key, value in typed.items() if key.startswith("model.")}
    return dataclasses.replace(recipe, **fields, model={**recipe.model, **model})


def _typed(value: Value, example: Value) -> Value:
    if isinstance(example, bool):
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return words[str(value).lower()]
    if isinstance(example, int):
        if float(value) != int(float(value)):
            raise ValueError(value)
        return int(float(value))
    if isinstance(example, float):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(value)
        return number
    return str(value)


def recipe_names() -> list[str]:
    """The recipes in `recipes/`, found by looking."""
    folder = importlib.import_module("recipes")
    return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))


def load_recipe(name: str) -> Recipe:
    """A recipe by its file name in `recipes/`, or by the dotted name of a module outside the repository.

    Raises:
        RecipeError: no such module (with the nearest that is), it does not run, or it holds no `RECIPE`.
    """
    recipe = getattr(_recipe_module(name), "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"The module '{name}' holds no recipe: expected a line RECIPE = Recipe(...) at its end.")
    return recipe


def read_source(name: str) -> str:
    """The text of the recipe's module."""
    return Path(str(_recipe_module(name).__file__)).read_text(encoding="utf-8")


def _recipe_module(name: str) -> Any:
    dotted, where = (name, "the Python path") if "." in name else (f"recipes.{name}", "recipes/")
    unknown = RecipeError(f"There is no recipe '{name}' in {where}. {nearest(name, recipe_names())}")
    if not all(word.isidentifier() for word in dotted.split(".")):
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
