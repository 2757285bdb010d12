"""`demo`: write synthetic radiographs as a MURA tree, an export of a PACS, or pictures and a spreadsheet."""

from __future__ import annotations

import shlex

from muralab.commands.keepalive import Keepalive
from muralab.config.commands import DemoConfig
from muralab.config.environment import Environment
from muralab.console import build_console, build_progress
from muralab.demo.dataset import write_demo
from muralab.demo.pacs import EXPORT_NAME, LABELS_NAME, write_export
from muralab.demo.spreadsheet import N_IMAGES, PICTURES_NAME, write_spreadsheet
from muralab.tracking import RunWriter, claim_run, open_store


def run(config: DemoConfig, environment: Environment) -> None:
    """Write the data and print the commands that use it.

    Raises:
        DataError: the folder cannot be written, or holds something else.
    """
    if environment.run_id:
        claim_run(open_store(environment.tracking_uri), environment.run_id)
    console = build_console()
    progress = build_progress(console)("drawing studies")
    with Keepalive(console):
        if config.layout == "mura":
            root = write_demo(config.folder, seed=config.seed, n_images=config.images, progress=progress)
            lines = [f"The synthetic MURA tree is {root}. Next:", f"  muralab explore --data {shlex.quote(str(root))}"]
        elif config.layout == "spreadsheet":
            table = write_spreadsheet(
                config.folder, seed=config.seed, n_images=config.images or N_IMAGES, progress=progress
            )
            options = f"--data {shlex.quote(str(table))} --part hand --columns image:file,label:fracture"
            lines = [
                f"The synthetic radiographs are in {table.parent / PICTURES_NAME}, their table is {table}. Next:",
                *(f"  muralab {command} {options}" for command in ("explore", "tune")),
            ]
        else:
            write_export(config.folder, seed=config.seed, n_images=config.images, progress=progress)
            lines = _next_steps(config)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if environment.run_id:
        with RunWriter(open_store(environment.tracking_uri)) as writer:
            writer.finish(writer.adopt_run(environment.run_id, {}, kind="demo"))


def _next_steps(config: DemoConfig) -> list[str]:
    export, labels, manifest = (
        shlex.quote(str(config.folder / name)) for name in (EXPORT_NAME, LABELS_NAME, "manifest.csv")
    )
    return [
        f"The synthetic DICOM export is {export}, its labels are {labels}. Next:",
        f"  muralab manifest {export} --labels {labels} --out {manifest}",
        f"  muralab explore --data {manifest}",
        f"  muralab tune --data {manifest}",
        f"  muralab predict {export}",
    ]
