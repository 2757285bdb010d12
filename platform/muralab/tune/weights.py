"""The pretrained weights of a search: resolved once, in the driver, for all trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from muralab.config.parsing import weights_by_recipe
from muralab.config.search import SearchConfig
from muralab.errors import WeightsError, nearest, numbered
from muralab.recipe import Recipe
from muralab.training.weights import AUTO, NONE, file_digest, load_backbone, read_state, resolve_weights

RANDOM = "random (as requested)"
UNAVAILABLE = "random (no ImageNet weights available)"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where each recipe's pretrained weights lie."""

    files: dict[str, str]
    """Recipe -> file, or empty."""
    description: str
    """File names with digests, for params and report."""
    notes: tuple[str, ...] = ()


def find_weights(config: SearchConfig) -> Weights:
    """Find the weights that the recipes of a search start from.

    Raises:
        WeightsError: those of a recipe are unavailable, and the data are real or the user named a file; names each.
    """
    options = config.options
    files = dict.fromkeys(config.recipes, "")
    pretrained = {name: recipe for name, recipe in config.recipes.items() if recipe.pretrained}
    choices, notes = choose_weights(options.weights, pretrained)
    if not pretrained:
        return Weights(files=files, description="none needed")
    problems = []
    for (choice, network), names in _same_source(pretrained, choices).items():
        try:
            for name in names:
                files[name] = str(resolve_weights(choice, network, recipe=name) or "")
        except WeightsError as error:
            if not (options.is_demo and choice == AUTO):
                problems.append(f"{', '.join(names)}: {error}")
                continue
            started = "The demo continues with random weights, which lowers its figures."
            notes.append(f"{', '.join(names)}: {error} {started}")
    if problems:
        raise WeightsError(
            problems[0] if len(problems) == 1 else numbered("The weights of these recipes are unusable:", problems)
        )
    return Weights(files=files, description=_describe(files, pretrained, choices), notes=tuple(notes))


def choose_weights(given: str, recipes: Mapping[str, Recipe]) -> tuple[dict[str, str], list[str]]:
    """What each recipe starts from, and notes where that is not what was given.

    A single file goes to the recipes whose backbone it fits; others start from timm's weights.

    Args:
        given: the option `weights`.
        recipes: name -> recipe, of those that have pretrained weights.

    Returns:
        Recipe -> `auto`, `none`, a file or a folder.

    Raises:
        WeightsError: it names a recipe that is not searched or needs no weights, or the file fits none.
    """
    named = weights_by_recipe(given)
    unknown = [name for name in named if name not in recipes]
    if unknown:
        raise WeightsError(
            f"weights={given}: no recipe '{unknown[0]}' needs weights here. {nearest(unknown[0], recipes)}"
        )
    if named:
        return {name: named.get(name, AUTO) for name in recipes}, []
    choices = dict.fromkeys(recipes, given)
    if len({recipe.pretrained for recipe in recipes.values()}) < 2 or not Path(given).is_file():
        return choices, []
    refusals = {name: _refusal(recipe, Path(given)) for name, recipe in recipes.items()}
    if all(refusals.values()):
        raise WeightsError(next(f"{name}: {refusal}" for name, refusal in refusals.items()))
    other = [name for name, refusal in refusals.items() if refusal]
    each = ",".join(f"{name}=<file>" for name in recipes)
    note = (
        f"{Path(given).name} does not fit {', '.join(other)}: timm's weights are used there. weights={each} gives each "
        "recipe its own."
    )
    return choices | dict.fromkeys(other, AUTO), [note] if other else []


def _refusal(recipe: Recipe, path: Path) -> str:
    """Why a file is not that of a recipe's backbone; empty where it is.

    Raises:
        WeightsError: it is no file of weights at all.
    """
    read_state(path)
    network = recipe.build(image_size=recipe.image_size, **recipe.model)
    try:
        load_backbone(network.backbone, path)
    except WeightsError as error:
        return str(error)
    return ""


def _same_source(recipes: Mapping[str, Recipe], choices: Mapping[str, str]) -> dict[tuple[str, str], list[str]]:
    """(choice, timm's network) -> the recipes that share both, for which the hub is asked once."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, recipe in recipes.items():
        groups.setdefault((choices[name], recipe.pretrained), []).append(name)
    return groups


def _describe(files: Mapping[str, str], recipes: Mapping[str, Recipe], choices: Mapping[str, str]) -> str:
    """The files, and which recipes have none."""
    random = [name for name in recipes if not files[name]]
    if len(random) == len(recipes):
        return RANDOM if all(choices[name] == NONE for name in random) else UNAVAILABLE
    described = describe_weights(Path(file) for file in files.values() if file)
    return f"{described}; random: {', '.join(random)}" if random else described


def describe_weights(files: Iterable[Path]) -> str:
    """Names and digests of files of weights."""
    return "; ".join(f"{path.name} {file_digest(path)}" for path in sorted(set(files)))
