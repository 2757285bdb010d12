"""`train` and `evaluate`: one run without a search, and a trained run judged again."""

from __future__ import annotations

from typing import Annotated

import typer

from muralab.cli.door import absolute, build_job, none
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


def train(
    recipe: Annotated[str, typer.Option(help="A recipe's name, or an importable module.")] = "inception_add_gate",
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
    protocol: Protocol = "valid-as-test",
    objective: Objective = "val_study_auroc",
    threshold: Threshold = "max-kappa",
    pictures: Pictures = "auto",
    resume: Annotated[str, typer.Option(help="The run id of an interrupted training.")] = "none",
) -> None:
    """Train one recipe without a search, and judge it on the test set."""
    from muralab.commands.train import run_training
    from muralab.config.settings import Request

    request = Request(
        recipes=recipe,
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
        protocol=protocol,
        objective=objective,
        threshold=threshold,
        pictures=pictures.lower(),
    )
    run_training(request, build_job(), resume=none(resume))


def evaluate(
    model: Annotated[str, typer.Option(help="A run's id, or models:/mura-wrist@champion.")],
    part: Annotated[str, typer.Option(help="A part, or `all`; `run`: the one that the run was trained on.")] = "run",
    data: Annotated[str, typer.Option(help="`demo`, a MURA-v1.1 tree's path, or `run`: the run's own.")] = "run",
    set: Annotated[str, typer.Option(help="test, validation, train or all.")] = "test",
    protocol: Annotated[str, typer.Option(help="Of the split; `run`: the trained run's own.")] = "run",
    seed: Annotated[str, typer.Option(help="Of the split; `run`: the trained run's own.")] = "run",
) -> None:
    """Judge a trained run on a data set, its own or another."""
    from muralab.commands.evaluate import run_evaluation

    run_evaluation(model, absolute(data, "demo", "run"), part, build_job(), which=set, protocol=protocol, seed=seed)
