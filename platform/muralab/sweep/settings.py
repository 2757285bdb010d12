"""What a sweep was asked for, read from text and checked before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from muralab.data.dataset import DEMO
from muralab.data.splits import PROTOCOLS
from muralab.errors import MuraLabError, RecipeError, SettingsError, nearest, numbered
from muralab.experiment import OBJECTIVES
from muralab.recipe import Recipe, Value, load_recipe, override, recipe_names
from muralab.search import Resources

DEFAULT_TRIALS = {True: 2, False: 8}
"""Per recipe, on the demo and on real data."""
EPOCHS_FORM = re.compile(r"(\d+)\+(\d+)")
TIME_FORM = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The entry point's parameters, as a user wrote them."""

    part: str = "wrist"
    data: str = DEMO
    weights: str = "auto"
    recipes: str = "all"
    trials: str = "auto"
    epochs: str = "recipe"
    image_size: str = "recipe"
    batch_size: str = "recipe"
    set: str = ""
    seed: int = 0
    gpus_per_trial: str = "auto"
    cpus_per_trial: str = "auto"
    max_concurrent: str = "auto"
    time_budget: str = "none"
    protocol: str = PROTOCOLS[0]
    objective: str = "val_study_auroc"

    @property
    def is_demo(self) -> bool:
        """Whether the built-in data set is asked for."""
        return self.data == DEMO

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A request that makes sense: recipes loaded, overrides resolved, numbers read."""

    request: Request
    recipes: Mapping[str, Recipe]
    """Name -> recipe with the overrides applied."""
    overrides: Mapping[str, Mapping[str, Value]]
    """Name -> what was changed."""
    trials: int
    resources: Resources
    time_budget_s: float | None


def check_request(request: Request, *, cpus: int | None = None, gpus: int | None = None) -> Settings:
    """Read a request, or refuse it with everything that is wrong with it.

    Args:
        request: as the user wrote it.
        cpus: of the machine; None: counted.
        gpus: of the machine; None: counted.

    Raises:
        MuraLabError: one numbered list.
    """
    problems: list[str] = []
    kinds: list[type[MuraLabError]] = []

    def attempt(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MuraLabError as error:
            problems.append(str(error))
            kinds.append(type(error))
            return None

    names = attempt(_read_names, request.recipes) or []
    common = attempt(_read_common, request) or {}
    chosen: dict[str, Mapping[str, Value]] = {}
    recipes: dict[str, Recipe] = {}
    for name in names:
        recipe = attempt(load_recipe, name)
        if recipe is not None:
            chosen[name] = {**(recipe.demo if request.is_demo else {}), **common}
            changed = attempt(override, recipe, chosen[name])
            if changed is not None and attempt(_check_epochs, name, changed):
                recipes[name] = changed
    trials = attempt(_read_count, "trials", request.trials, DEFAULT_TRIALS[request.is_demo])
    resources = attempt(_read_resources, request, cpus, gpus)
    time_budget_s = attempt(_read_time, request.time_budget)
    attempt(_check_word, "protocol", request.protocol, PROTOCOLS)
    attempt(_check_word, "objective", request.objective, OBJECTIVES)
    if problems:
        unique = list(dict.fromkeys(problems))
        raise kinds[0](unique[0] if len(unique) == 1 else numbered(f"{len(unique)} parameters do not fit:", unique))
    return Settings(
        request=request,
        recipes=recipes,
        overrides=chosen,
        trials=trials,
        resources=resources,
        time_budget_s=time_budget_s,
    )


def _read_names(text: str) -> list[str]:
    names = recipe_names() if text.strip() == "all" else [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise RecipeError(f"recipes={text!r} names none. {nearest('', recipe_names())}")
    return list(dict.fromkeys(names))


def _read_common(request: Request) -> dict[str, Value]:
    """Overrides that hold for every recipe: image_size, batch_size, epochs, then `set`."""
    changes: dict[str, Value] = {}
    for key in ("image_size", "batch_size"):
        text = getattr(request, key)
        if text != "recipe":
            changes[key] = _read_count(key, text, 0)
    if request.epochs != "recipe":
        match = EPOCHS_FORM.fullmatch(request.epochs.strip())
        if not match:
            raise SettingsError(f"epochs={request.epochs}: expected `recipe`, or upper+full such as 2+3.")
        changes["upper.epochs"], changes["full.epochs"] = int(match[1]), int(match[2])
    return {**changes, **read_overrides(request.set)}


def read_overrides(text: str) -> dict[str, Value]:
    """`full.lr=3e-5,augment.zoom=0.1` as a dict; empty text or `none` is no override.

    Raises:
        SettingsError: a part is not key=value.
    """
    changes: dict[str, Value] = {}
    for part in text.split(",") if text not in ("", "none") else []:
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value):
            raise SettingsError(f"set={text}: '{part}' is not key=value; expected e.g. full.lr=3e-5,augment.zoom=0.1.")
        changes[key] = value
    return changes


def _check_epochs(name: str, recipe: Recipe) -> bool:
    if recipe.full.epochs == 0:
        raise SettingsError(
            f"The recipe '{name}' would train 0 epochs of its full phase, and nothing is tested after the upper phase "
            "alone. Expected upper+full such as 2+3, with full at least 1."
        )
    return True


def _read_count(key: str, text: str, default: int) -> int:
    if text == "auto":
        return default
    if not text.strip().isdigit() or int(text) < 1:
        raise SettingsError(f"{key}={text}: expected a whole number of 1 or more.")
    return int(text)


def _read_time(text: str) -> float | None:
    if text in ("none", ""):
        return None
    match = TIME_FORM.fullmatch(text.strip())
    if not match or float(match[1]) <= 0:
        raise SettingsError(f"time_budget={text}: expected seconds, minutes or hours such as 900, 30m or 2h, or none.")
    return float(match[1]) * SECONDS[match[2]]


def _check_word(key: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise SettingsError(f"{key}={word} is unknown. {nearest(word, known)}")


def count_gpus() -> int:
    """CUDA devices that torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def count_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_resources(request: Request, cpus: int | None, gpus: int | None) -> Resources:
    cpus = count_cpus() if cpus is None else cpus
    gpus = count_gpus() if gpus is None else gpus
    per_gpu = _read_gpus(request.gpus_per_trial, gpus)
    slots_by_gpu = int(gpus / per_gpu + 1e-9) if per_gpu else cpus
    per_cpu = _read_count("cpus_per_trial", request.cpus_per_trial, max(1, cpus // slots_by_gpu) if per_gpu else 1)
    if per_cpu > cpus:
        raise SettingsError(f"cpus_per_trial={per_cpu}: this machine has {cpus}.")
    slots = min(slots_by_gpu, cpus // per_cpu)
    return Resources(
        cpus=cpus,
        gpus=gpus if per_gpu else 0,
        cpus_per_trial=per_cpu,
        gpus_per_trial=per_gpu,
        max_concurrent=min(slots, _read_count("max_concurrent", request.max_concurrent, slots)),
    )


def _read_gpus(text: str, gpus: int) -> float:
    if text == "auto":
        return 1.0 if gpus else 0.0
    try:
        wanted = float(text)
    except ValueError:
        wanted = -1.0
    if wanted < 0 or (wanted > 1 and wanted != int(wanted)):
        raise SettingsError(f"gpus_per_trial={text}: expected auto, 0, a fraction such as 0.5, or a whole number.")
    if wanted > gpus:
        raise SettingsError(f"gpus_per_trial={text}: this machine has {gpus} that torch can use.")
    if wanted > 1:
        raise SettingsError(f"gpus_per_trial={text}: a trial trains on one GPU; give 1 or a fraction.")
    return wanted
