"""Write the references of the recipes and of MLflow's runs from the code itself: make generate

A test fails while docs/recipes.md or docs/mlflow-reference.md differs from what this writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mlflow_reference import mlflow_page, table
from muralab.data.augment import Augment
from muralab.recipe import Recipe, resolved_values
from muralab.recipe_loader import load_recipe, recipe_names
from muralab.search_space import Choice, LogUniform, Space
from muralab.training.phases import Phase

INTRODUCTION = """# Recipes

One file in `recipes/` is one architecture with its schedule, its augmentation and what a sweep may change. This page is
generated from these files (`make generate`). Every value can be overridden on the command line by its key:
`-P set=full.lr=1e-4,augment.zoom=0.1`. How to add a recipe: [Contributing](../CONTRIBUTING.md).

## Weights

Recipes that name ImageNet weights of timm (below) start from these, others from random weights.

| `weights=` | each of these recipes starts from |
| --- | --- |
| `auto` | timm's weights, from the hub's cache on this machine or downloaded into it |
| `none` | random weights |
| a file | that file; a recipe that it does not fit starts from timm's weights, with a note |
| `inception=a.pth,densenet169=b.pth` | its own file, or `auto` or `none`; a recipe that is not named: `auto` |
| a folder | its file that has the name of the recipe or of timm's network, such as `densenet169.safetensors` |

A file is a state dict of the same timm network, as safetensors or .pth; its classifier is ignored. On real data,
weights that are not available end the command before anything starts; on the demo, the recipe starts from random
weights, and a note says so.

A machine without a network: fill the cache of one that has it, and copy the folder.

```console
$ python -c "import timm; timm.create_model('inception_v3.tf_in1k', pretrained=True)"
$ rsync -a ~/.cache/huggingface/hub/models--timm--* offline-machine:.cache/huggingface/hub/
```

`auto` then finds them there; `HF_HOME` moves that cache.
"""
PLAIN = ("ema_decay", "clip_norm", "class_weighting", "kept_phase", "feature_views", "source_scale")


def describe_space(space: Space) -> str:
    """A range or choice in a few words."""
    if isinstance(space, Choice):
        return "one of " + ", ".join(str(value) for value in space.values)
    scale = "logarithmic" if isinstance(space, LogUniform) else "uniform"
    return f"{space.low:g} to {space.high:g}, {scale}"


def shown(value: object) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def phase_row(name: str, phase: Phase) -> list[str]:
    """What a phase trains, and how."""
    warm_up = f"warm-up ({phase.warmup_epochs:g}), then " if phase.warmup_epochs else ""
    backbone = f", backbone x {phase.backbone_lr_factor:g}" if phase.backbone_lr_factor != 1 else ""
    return [
        f"`{name}`",
        str(phase.epochs),
        f"`{'|'.join(phase.trains)}`".replace("|", "\\|"),
        f"{phase.lr:g}{backbone}",
        f"{warm_up}{phase.schedule}",
        f"{phase.weight_decay:g}",
        str(phase.patience or "off"),
    ]


def section(name: str, recipe: Recipe) -> str:
    """One recipe."""
    values = resolved_values(recipe)
    weights = f"ImageNet weights of timm's `{recipe.pretrained}`" if recipe.pretrained else "random initial weights"
    strengths = {f.name: getattr(recipe.augment, f.name) for f in dataclasses.fields(Augment)}
    applied = ", ".join(f"`augment.{key}` {shown(value)}" for key, value in strengths.items() if value)
    off = ", ".join(f"`{key}`" for key, value in strengths.items() if not value)
    model = ", ".join(f"`{key}` {shown(value)}" for key, value in values.items() if key.startswith("model."))
    plain = ", ".join(f"`{key}` {shown(values[key])}" for key in PLAIN)
    registers = " A sweep registers the best model of this recipe." if recipe.registers else ""
    headings = ("phase", "epochs", "trains", "learning rate", "schedule (epochs)", "weight decay", "patience")
    return "\n\n".join(
        [
            f"## {name}",
            f"{recipe.summary[0].upper()}{recipe.summary[1:]}; squares of {recipe.image_size} px, batches of "
            f"{recipe.batch_size}, {weights}.{registers}",
            table(headings, [phase_row(phase, values) for phase, values in recipe.phases.items()]),
            f"Augmentation: {applied}; off by default: {off}.",
            f"Other values: {plain}; {model}.",
            table(("searched", "range"), [(f"`{key}`", describe_space(space)) for key, space in recipe.search.items()]),
            "On the demo: " + ", ".join(f"`{key}={shown(value)}`" for key, value in recipe.demo.items()) + ".",
        ]
    )


def recipes_page() -> str:
    """The text of docs/recipes.md."""
    return "\n\n".join([INTRODUCTION.strip(), *(section(name, load_recipe(name)) for name in recipe_names())]) + "\n"


PAGES: dict[str, Callable[[], str]] = {"recipes.md": recipes_page, "mlflow-reference.md": mlflow_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        Path(__file__).with_name(name).write_text(page(), encoding="utf-8")
