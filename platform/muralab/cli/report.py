"""`report`: a page of any evaluated runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muralab.cli.door import absolute, build_job, none
from muralab.cli.options import Pictures


def report(
    runs: Annotated[str, typer.Option(help="Ids of evaluated runs by comma; a sweep's id stands for its best trials.")],
    out: Annotated[str, typer.Option(help="Also write it to this file or folder; or `none`.")] = "none",
    pictures: Pictures = "auto",
) -> None:
    """Write one self-contained HTML report of any evaluated runs of one part and test set."""
    from muralab.commands.report import run_report

    path = none(out)
    run_report(runs, build_job(), out=None if path is None else Path(absolute(path)), pictures=pictures.lower())
