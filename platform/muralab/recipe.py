"""Specification of a recipe, and overrides of its values.

A recipe is one module that ends with `RECIPE = Recipe(...)`. It imports this module and torch or timm, and nothing else
of the platform: every name that a recipe needs is in `__all__`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from muralab.data.augment import Augment
from muralab.errors import RecipeError, nearest
from muralab.search_space import Choice, LogUniform, Space, Uniform, Value
from muralab.training.network import Network
from muralab.training.phases import EVERYTHING, HEAD_ONLY, KEPT_PHASES, Phase

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
    "Value",
    "override",
    "resolved_values",
]

PLAIN_KEYS = (
    "image_size",
    "batch_size",
    "ema_decay",
    "clip_norm",
    "class_weighting",
    "kept_phase",
    "source_scale",
    "compile",
    "feature_views",
)
GROUPS = ("upper", "full", "augment")
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
TRUTH_VALUES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An architecture with its training schedule, its augmentation and the ranges that a search draws from."""

    build: Callable[..., Network]
    """`build(*, image_size, **model)` -> Network with random weights; the keyword defaults become `model.*` values."""
    summary: str
    """The architecture in a few words, for tables."""
    image_size: int
    """Side of the square input in px."""
    batch_size: int
    upper: Phase
    """First phase: the head on a frozen backbone, or the warm-up of a network trained from scratch."""
    full: Phase
    """Second phase: the whole network."""
    augment: Augment
    """Strengths of the augmentation. Searched strengths apply to the full phase only."""
    search: Mapping[str, Space]
    """Override key -> range that a sweep draws from."""
    model: Mapping[str, Value] = field(default_factory=dict)
    """Arguments of `build` that differ from its defaults; holds all of them once the recipe is created."""
    pretrained: str = ""
    """timm name of the backbone, with the tag of its ImageNet weights; empty for a network trained from scratch."""
    registers: bool = False
    """Whether a sweep registers the best model of this recipe for serving."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average of the weights; 0 turns averaging off."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient; 0 turns clipping off."""
    class_weighting: bool = True
    """Weight the loss by inverse class frequency."""
    kept_phase: str = "best"
    """Whose best weights are tested and kept: `best` (the phase that validates better by the objective) or `full`."""
    compile: bool = False
    """Compile the training steps of the whole network: minutes at the start of each trial, faster steps afterwards."""
    feature_views: int = 6
    """Augmented views per training image whose features are cached for the upper phase of a frozen backbone."""
    source_scale: float = 1.0
    """Side of the squares that augmentation reads, as a multiple of `image_size`. At 1 its interpolation blurs training
    images but not those that are evaluated; larger squares keep their detail, and take that factor squared on disk."""
    demo: Mapping[str, Value] = field(default_factory=dict)
    """Overrides that let a sweep on the demo data finish in minutes on two CPU cores."""
    study: Mapping[str, Value] = field(default_factory=dict)
    """Overrides that carry out the wrist study's schedule literally, for `set=study`; see docs/study.md."""
    earlier: Mapping[str, Value] = field(default_factory=dict)
    """Values of runs and plans of earlier versions that these do not state, where they differ from today's defaults."""

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.build).parameters
        object.__setattr__(self, "model", {**_model_defaults(parameters), **self.model})
        checks = [
            (32 <= self.image_size <= 4096, f"image_size={self.image_size}: expected 32 to 4096 px"),
            (2 <= self.batch_size <= 65536, f"batch_size={self.batch_size}: expected 2 to 65536"),
            (0 <= self.ema_decay < 1, f"ema_decay={self.ema_decay}: expected at least 0 and below 1"),
            (self.clip_norm >= 0, f"clip_norm={self.clip_norm}: expected 0 or more"),
            (
                self.kept_phase in KEPT_PHASES,
                f"kept_phase={self.kept_phase!r}: expected one of {', '.join(KEPT_PHASES)}",
            ),
            (self.feature_views >= 1, f"feature_views={self.feature_views}: expected 1 or more"),
            (1 <= self.source_scale <= 4, f"source_scale={self.source_scale}: expected 1 to 4"),
        ]
        problems = [message for valid, message in checks if not valid]
        known = resolved_values(self)
        problems += [
            f"search key '{key}' is {TYPE_NAMES[type(known[key])]}: search it with Choice(...)"
            for key, space in self.search.items()
            if key in known and not isinstance(known[key], float) and not isinstance(space, Choice)
        ]
        listed = {"search": self.search, "demo": self.demo, "study": self.study, "earlier": self.earlier}
        for name, keys in listed.items():
            problems += [f"unknown {name} key '{key}'. {nearest(key, known)}" for key in keys if key not in known]
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            unknown = [key for key in self.model if key not in parameters]
            problems += [f"unknown model key '{key}'. {nearest(key, parameters)}" for key in unknown]
        if problems:
            raise RecipeError("; ".join(problems))

    @property
    def phases(self) -> dict[str, Phase]:
        """Name -> phase, in training order."""
        return {"upper": self.upper, "full": self.full}

    @property
    def source_size(self) -> int:
        """Side in px of the squares that augmentation reads."""
        return round(self.image_size * self.source_scale)

    @property
    def decoded_sizes(self) -> tuple[int, ...]:
        """Sides in px of the squares that its trials read: those that are evaluated, and those that are augmented."""
        return tuple(sorted({self.image_size, self.source_size}))


def _model_defaults(parameters: Mapping[str, inspect.Parameter]) -> dict[str, Value]:
    """Keyword-only parameters of a build function with their defaults, except `image_size`."""
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and name != "image_size"
        and isinstance(parameter.default, float | int | bool | str)
    }


def resolved_values(recipe: Recipe) -> dict[str, Value]:
    """Flatten all values that can be overridden: `full.lr`, `augment.zoom`, `model.width`, `image_size` ..."""
    values: dict[str, Any] = {key: getattr(recipe, key) for key in PLAIN_KEYS}
    values |= {key: float(values[key]) for key in ("ema_decay", "clip_norm", "source_scale")}
    for group in GROUPS:
        spec = getattr(recipe, group)
        # By the declared type: a rate written as 1 is still a float, and may be overridden by 0.5.
        values |= {
            f"{group}.{f.name}": float(value) if f.type == "float" else value
            for f in dataclasses.fields(spec)
            for value in [getattr(spec, f.name)]
        }
    values |= {f"model.{key}": value for key, value in recipe.model.items()}
    return {key: "|".join(value) if isinstance(value, tuple) else value for key, value in values.items()}


def override(recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    """Return a copy of a recipe with some values changed; text is parsed as the type of the value that it replaces.

    Raises:
        RecipeError: a key is unknown (the nearest one is suggested), or a value cannot be parsed or is out of range.
    """
    known = resolved_values(recipe)
    problems = [f"unknown key '{key}'. {nearest(key, known)}" for key in changes if key not in known]
    typed: dict[str, Any] = {}
    for key in [key for key in changes if key in known]:
        try:
            typed[key] = _parse(changes[key], known[key])
        except (ValueError, OverflowError, KeyError):
            problems.append(f"{key}={changes[key]}: expected {TYPE_NAMES[type(known[key])]}")
    if problems:
        raise RecipeError("; ".join(problems))
    fields: dict[str, Any] = {key: typed[key] for key in PLAIN_KEYS if key in typed}
    for group in GROUPS:
        part = _group(typed, group)
        if "trains" in part:
            part["trains"] = tuple(part["trains"].split("|"))
        fields[group] = dataclasses.replace(getattr(recipe, group), **part)
    return dataclasses.replace(recipe, **fields, model={**recipe.model, **_group(typed, "model")})


def _group(values: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The values whose keys start with `group.`, without that prefix."""
    return {key.split(".", 1)[1]: value for key, value in values.items() if key.startswith(f"{group}.")}


def _parse(value: Value, example: Value) -> Value:
    """Convert a value to the type of an example."""
    if isinstance(example, bool):
        return TRUTH_VALUES[str(value).lower()]
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
