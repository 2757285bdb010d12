"""What a sweep was asked for, read from text and checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from muralab.config.parsing import (
    LARGEST_COUNT,
    check_threshold,
    check_word,
    read_count,
    read_epochs,
    read_gpus,
    read_overrides,
    read_sizes,
    read_time,
)
from muralab.config.resources import Resources, free_memory
from muralab.config.resources import count_cpus as count_cpus
from muralab.config.resources import count_gpus as count_gpus
from muralab.data.dataset import DEMO
from muralab.data.splits import PROTOCOLS
from muralab.errors import MuraLabError, RecipeError, SettingsError, nearest, numbered
from muralab.evaluation.operating_point import RULES
from muralab.experiment import OBJECTIVES
from muralab.recipe import Recipe, Value, override
from muralab.recipe_loader import load_recipe, recipe_names

DEFAULT_TRIALS = {True: 2, False: 8}
"""Per recipe, on the demo and on real data."""
CPU_TRIAL_BYTES, DRIVER_BYTES = 2_300_000_000, 1_000_000_000
"""What a trial without a GPU takes, and the sweep itself with Ray: 5.6 GB with two trials (docs/results.md)."""
PICTURES = ("auto", "true", "false")
"""Whether what is logged may show pictures of the data set; auto: of synthetic ones alone."""


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
    pictures: str = "auto"
    threshold: str = RULES[0]

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
    fixed: Mapping[str, Value]
    """What the user asked for in words: never drawn over."""
    trials: int
    resources: Resources
    time_budget_s: float | None


def check_request(
    request: Request, *, cpus: int | None = None, gpus: int | None = None, memory: int | None = None
) -> Settings:
    """Read a request, or refuse it with everything that is wrong with it.

    Args:
        request: as the user wrote it.
        cpus: of the machine; None: counted.
        gpus: of the machine; None: counted.
        memory: free bytes of the machine; None: asked for.

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
    common = attempt(read_sizes, request.image_size, request.batch_size) or {}
    common |= attempt(read_epochs, request.epochs) or {}
    common |= attempt(read_overrides, request.set) or {}
    chosen: dict[str, Mapping[str, Value]] = {}
    recipes: dict[str, Recipe] = {}
    for name in names:
        recipe = attempt(load_recipe, name)
        if recipe is not None:
            chosen[name] = {**(recipe.demo if request.is_demo else {}), **common}
            changed = attempt(_override, name, recipe, chosen[name])
            if changed is not None:
                recipes[name] = changed
    trials = attempt(read_count, "trials", request.trials, DEFAULT_TRIALS[request.is_demo])
    resources = attempt(read_resources, request, cpus, gpus, memory)
    time_budget_s = attempt(read_time, request.time_budget)
    attempt(check_word, "protocol", request.protocol, PROTOCOLS)
    attempt(check_word, "objective", request.objective, OBJECTIVES)
    attempt(check_word, "pictures", request.pictures, PICTURES)
    attempt(check_threshold, request.threshold)
    if problems:
        unique = _without_names(problems, names)
        raise kinds[0](unique[0] if len(unique) == 1 else numbered(f"{len(unique)} parameters do not fit:", unique))
    return Settings(
        request=request,
        recipes=recipes,
        overrides=chosen,
        fixed=common,
        trials=trials,
        resources=resources,
        time_budget_s=time_budget_s,
    )


def _read_names(text: str) -> list[str]:
    names = recipe_names() if text.strip() == "all" else [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise RecipeError(f"recipes={text!r} names none. {nearest('', recipe_names())}")
    return list(dict.fromkeys(names))


def _override(name: str, recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    try:
        changed = override(recipe, changes)
    except MuraLabError as error:
        raise type(error)(f"{name}: {error}") from error
    if changed.full.epochs == 0:
        raise SettingsError(
            f"{name}: no epoch of the full phase is asked for, and nothing is tested after the upper phase alone. "
            "Expected upper+full such as 2+3, with full at least 1."
        )
    return changed


def _without_names(problems: Iterable[str], names: Sequence[str]) -> list[str]:
    """Each problem once; one that all recipes share without their names."""
    found = dict.fromkeys(problems)
    for text in [p.removeprefix(f"{names[0]}: ") for p in found if names and p.startswith(f"{names[0]}: ")]:
        same = [f"{name}: {text}" for name in names]
        if all(one in found for one in same):
            found = dict.fromkeys(text if problem in same else problem for problem in found)
    return list(found)


def read_resources(
    request: Request, cpus: int | None = None, gpus: int | None = None, memory: int | None = None
) -> Resources:
    """What a request takes of the machine; what is None is looked up."""
    cpus = count_cpus() if cpus is None else cpus
    gpus = count_gpus() if gpus is None else gpus
    per_gpu = read_gpus(request.gpus_per_trial, gpus)
    slots_by_gpu = gpus * int(1 / per_gpu + 1e-9) if per_gpu else cpus  # no trial is spread over two of them
    per_cpu = read_count("cpus_per_trial", request.cpus_per_trial, max(1, cpus // slots_by_gpu) if per_gpu else 1)
    if per_cpu > cpus:
        raise SettingsError(f"cpus_per_trial={per_cpu}: this machine has {cpus}.")
    slots = min(slots_by_gpu, cpus // per_cpu)
    fitting = slots if per_gpu else min(slots, slots_in(free_memory() if memory is None else memory))
    return Resources(
        cpus=cpus,
        gpus=gpus if per_gpu else 0,
        cpus_per_trial=per_cpu,
        gpus_per_trial=per_gpu,
        max_concurrent=min(slots, read_count("max_concurrent", request.max_concurrent, fitting)),
    )


def slots_in(memory: int | None) -> int:
    """Trials without a GPU that so many bytes of memory hold at once: at least one, and any number where unknown."""
    return LARGEST_COUNT if memory is None else max(1, (memory - DRIVER_BYTES) // CPU_TRIAL_BYTES)
