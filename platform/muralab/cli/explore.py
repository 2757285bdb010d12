"""`explore`: what a data set holds."""

from __future__ import annotations

from typing import Annotated

import typer

from muralab.cli.door import absolute, build_job
from muralab.cli.options import Data, Part, Seed


def explore(
    part: Part = "all",
    data: Data = "demo",
    seed: Seed = 0,
    pictures: Annotated[str, typer.Option(help="`true` logs sample grids; `auto`: for the demo alone.")] = "auto",
) -> None:
    """Log the class balance per part and split, an audit of every file, and sample grids."""
    from muralab.commands.explore import run_explore

    run_explore(absolute(data, "demo"), part, build_job(), seed=seed, pictures=pictures.lower())
