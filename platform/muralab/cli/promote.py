"""`promote`: a model through the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from muralab.cli.door import build_job, flag, none
from muralab.cli.options import Part


def promote(
    part: Part = "wrist",
    run: Annotated[
        str, typer.Option(help="A trained run that met the test set; registered if it is not yet.")
    ] = "none",
    version: Annotated[str, typer.Option(help="Or a version of mura-<part>.")] = "none",
    margin: Annotated[float, typer.Option(help="The paired interval must lie above minus this.")] = 0.05,
    dry_run: Annotated[str, typer.Option(help="`true` decides and changes nothing.")] = "false",
) -> None:
    """Compare a model with the champion on the same test studies; it becomes champion or stays challenger."""
    from muralab.commands.promote import run_promote
    from muralab.registry import Margins

    run_promote(
        part,
        build_job(),
        run=none(run),
        version=none(version),
        margins=Margins(objective=margin),
        dry_run=flag("dry_run", dry_run),
    )
