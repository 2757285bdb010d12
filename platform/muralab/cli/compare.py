"""`compare`: recipes against each other over seeds."""

from __future__ import annotations

from typing import Annotated

import typer

from muralab.cli.door import absolute, build_job, flag
from muralab.cli.options import (
    BatchSize,
    Cpus,
    Data,
    Epochs,
    Gpus,
    ImageSize,
    Objective,
    Part,
    Protocol,
    Seed,
    Set,
    Threshold,
    Weights,
)


def compare(
    recipes: Annotated[str, typer.Option(help="Names by comma; the others are compared with the first.")] = (
        "inception,inception_add_gate"
    ),
    seeds: Annotated[int, typer.Option(help="Trainings of each recipe, from `seed` on.")] = 5,
    part: Part = "wrist",
    data: Data = "demo",
    weights: Weights = "auto",
    epochs: Epochs = "recipe",
    image_size: ImageSize = "recipe",
    batch_size: BatchSize = "recipe",
    set: Set = "none",
    seed: Seed = 0,
    gpus_per_trial: Gpus = "auto",
    cpus_per_trial: Cpus = "auto",
    max_concurrent: Annotated[str, typer.Option(help="Trials at once; `auto`: as many as fit.")] = "auto",
    protocol: Protocol = "valid-as-test",
    objective: Objective = "val_study_auroc",
    threshold: Threshold = "max-kappa",
    dry_run: Annotated[str, typer.Option(help="`true` prints the plan and stops.")] = "false",
) -> None:
    """Train each recipe unchanged with several seeds, and state the paired difference with its interval."""
    from muralab.commands.compare import run_compare
    from muralab.config.settings import Request

    request = Request(
        recipes=recipes,
        part=part,
        data=absolute(data, "demo"),
        weights=absolute(weights, "auto", "none"),
        epochs=epochs,
        image_size=image_size,
        batch_size=batch_size,
        set=set,
        seed=seed,
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        max_concurrent=max_concurrent,
        protocol=protocol,
        objective=objective,
        threshold=threshold,
    )
    run_compare(request, build_job(), seeds=seeds, dry_run=flag("dry_run", dry_run))
