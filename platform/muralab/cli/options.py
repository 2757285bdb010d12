"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

LARGEST_SEED = 2**32 - 1
"""What every generator of random numbers takes."""

Part = Annotated[str, typer.Option(help="A part of the tree, such as wrist, or `all`.")]
Data = Annotated[str, typer.Option(help="`demo` (synthetic, built in), or the path of a MURA-v1.1 tree.")]
Weights = Annotated[str, typer.Option(help="`auto` (timm's ImageNet weights), a file, or `none` (random).")]
Epochs = Annotated[str, typer.Option(help="`recipe` (its own schedule), or upper+full such as 2+3.")]
ImageSize = Annotated[str, typer.Option(help="Side in px for every recipe, or `recipe`.")]
BatchSize = Annotated[str, typer.Option(help="Images a step for every recipe, or `recipe`.")]
Set = Annotated[str, typer.Option(help="Overrides: full.lr=3e-5,augment.zoom=0.1; or `none`.")]
Seed = Annotated[int, typer.Option(help="Of the split, the draws and the training.", min=0, max=LARGEST_SEED)]
Protocol = Annotated[str, typer.Option(help="`valid-as-test`, or the study's `valid-as-validation`.")]
Objective = Annotated[str, typer.Option(help="The validation metric that chooses.")]
Threshold = Annotated[str, typer.Option(help="Where abnormal begins: max-kappa, youden, or sensitivity>=0.9.")]
Gpus = Annotated[str, typer.Option(help="`auto` (1 with CUDA, else 0), a fraction, or `pack` (what memory holds).")]
Cpus = Annotated[str, typer.Option(help="CPU cores a trial; `auto`.")]
Pictures = Annotated[str, typer.Option(help="`true` logs pictures of errors; `auto`: of the demo alone.")]
