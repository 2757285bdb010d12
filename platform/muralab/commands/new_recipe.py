"""`new-recipe`: write a recipe around a convolutional network of timm, ready to train, search and edit."""

from __future__ import annotations

import difflib
import importlib
import keyword
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from muralab.atomic import atomic_path
from muralab.config.commands import NewRecipeConfig
from muralab.config.environment import Environment
from muralab.console import build_console
from muralab.errors import RecipeError, nearest
from muralab.recipe_loader import load_recipe, recipe_names

TEMPLATE = "new_recipe.py.j2"
SMALLEST_SIDE = 96
"""Of the squares that a recipe must take, in px: its tests shrink it to this."""
DEMO_SIDE = 112


def run(config: NewRecipeConfig, environment: Environment) -> None:
    """Write `recipes/<name>.py`, load it, and print how to check and run it.

    Raises:
        RecipeError: the name is taken or cannot be a module's, or timm's network cannot be a recipe's backbone.
    """
    del environment
    path = check_name(config.name)
    text = render_recipe(config.name, config.backbone)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    importlib.invalidate_caches()
    recipe = load_recipe(config.name)
    start = f"ImageNet weights {recipe.pretrained}" if recipe.pretrained else "random weights: timm has none for it"
    for line in (
        f"Wrote {path}: {recipe.summary}, {start}.",
        "Its schedule, ranges and head are a start: the file shows every value. Next:",
        f"  python -m pytest tests/test_recipes.py -k {config.name}",
        f"  make tune ARGS='-P recipes={config.name}'",
        "  make generate                # adds it to docs/recipes.md",
    ):
        build_console().print(line, highlight=False, markup=False, soft_wrap=True)


def check_name(name: str) -> Path:
    """Where a recipe of a name is written.

    Raises:
        RecipeError: it cannot be a module's name, or is taken.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_") or name in ("all", "study"):
        raise RecipeError(f"'{name}' cannot be a recipe's name: expected letters, digits and _, such as resnet18.")
    path = Path(next(iter(importlib.import_module("recipes").__path__))) / f"{name}.py"
    if name in recipe_names():
        raise RecipeError(f"{path} exists. Give another name, or remove it.")
    return path


def render_recipe(name: str, backbone: str) -> str:
    """The source of a recipe around a network of timm.

    Args:
        name: of the recipe.
        backbone: timm's name, with the tag of its weights or without.

    Raises:
        RecipeError: timm has no such network or weights, or it gives no feature maps.
    """
    import jinja2
    import timm

    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture):
        raise RecipeError(f"timm has no network '{architecture}'. {_suggest(architecture, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise RecipeError(f"timm has no weights '{tag}' of '{architecture}'. {nearest(tag, tags)}")
    facts = timm.get_pretrained_cfg(backbone)
    values = {
        "name": name,
        "backbone": backbone,
        "architecture": architecture,
        "features": _count_features(architecture),
        "mean": round(fmean(facts.mean), 3),  # over the channels: a radiograph has one
        "std": round(fmean(facts.std), 3),
        "pretrained": f"{architecture}.{facts.tag}" if facts.hf_hub_id else "",
        "image_size": facts.input_size[1],
        "demo_size": DEMO_SIDE,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(values)


def _suggest(architecture: str, known: Sequence[str]) -> str:
    """The network that was perhaps meant; all that timm has would be a thousand lines."""
    found = difflib.get_close_matches(architecture, known, n=1, cutoff=0.5)
    return f"Did you mean '{found[0]}'?" if found else "`timm.list_models()` lists all."


def _count_features(architecture: str) -> int:
    """F of the feature maps [B, F, h, w] that a network gives without its classifier.

    Raises:
        RecipeError: it takes no squares of any size, or gives something else.
    """
    import timm
    import torch

    advice = "Choose a convolutional network, such as resnet18, densenet121 or convnext_atto."
    network = timm.create_model(architecture, pretrained=False, num_classes=0, global_pool="").eval()
    try:
        with torch.inference_mode():
            shape = tuple(network(torch.zeros(2, 3, SMALLEST_SIDE, SMALLEST_SIDE)).shape)
    except (AssertionError, RuntimeError) as error:
        raise RecipeError(f"'{architecture}' takes no squares of {SMALLEST_SIDE} px ({error}). {advice}") from error
    widths = {network.num_features, getattr(network, "head_hidden_size", None)}
    if len(shape) != 4 or shape[1] not in widths:
        raise RecipeError(
            f"'{architecture}' gives {list(shape)} for two images, not feature maps [2, features, height, width], "
            f"which heat maps are drawn from. {advice}"
        )
    return int(shape[1])
