"""`tune`: the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from muralab.cli.door import absolute, build_job, flag, none
from muralab.cli.options import (
    BatchSize,
    Cpus,
    Data,
    Epochs,
    Gpus,
    ImageSize,
    Objective,
    Part,
    Pictures,
    Protocol,
    Seed,
    Set,
    Threshold,
    Weights,
)


def tune(
    part: Part = "wrist",
    data: Data = "demo",
    weights: Weights = "auto",
    recipes: Annotated[str, typer.Option(help="`all`, or names by comma; also importable modules.")] = "all",
    trials: Annotated[str, typer.Option(help="Per recipe; `auto`: 2 on the demo, else 8.")] = "auto",
    epochs: Epochs = "recipe",
    image_size: ImageSize = "recipe",
    batch_size: BatchSize = "recipe",
    set: Set = "none",
    seed: Seed = 0,
    gpus_per_trial: Gpus = "auto",
    cpus_per_trial: Cpus = "auto",
    max_concurrent: Annotated[str, typer.Option(help="Trials at once; `auto`: as many as fit.")] = "auto",
    time_budget: Annotated[str, typer.Option(help="For the search: 900, 30m, 2h, or `none`.")] = "none",
    protocol: Protocol = "valid-as-test",
    objective: Objective = "val_study_auroc",
    threshold: Threshold = "max-kappa",
    pictures: Pictures = "auto",
    resume: Annotated[str, typer.Option(help="The run id of an interrupted sweep; its own parameters hold.")] = "none",
    dry_run: Annotated[str, typer.Option(help="`true` prints the plan and stops.")] = "false",
) -> None:
    """Search all recipes, compare the best of each on the test set, register the best add-gate model."""
    from muralab.commands.tune import run_sweep
    from muralab.config.settings import Request

    request = Request(
        part=part,
        data=absolute(data, "demo"),
        weights=absolute(weights, "auto", "none"),
        recipes=recipes,
        trials=trials,
        epochs=epochs,
        image_size=image_size,
        batch_size=batch_size,
        set=set,
        seed=seed,
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        max_concurrent=max_concurrent,
        time_budget=time_budget,
        protocol=protocol,
        objective=objective,
        threshold=threshold,
        pictures=pictures.lower(),
    )
    run_sweep(request, build_job(), resume=none(resume), dry_run=flag("dry_run", dry_run))
