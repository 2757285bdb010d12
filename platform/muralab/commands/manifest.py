"""`manifest`: walk a folder, read DICOM headers, join labels, and write the table that `data=` takes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.commands.keepalive import Keepalive
from muralab.commands.out_table import check_out, write_table
from muralab.config.commands import ManifestConfig
from muralab.config.environment import Environment
from muralab.console import build_console, build_progress
from muralab.data.labels import read_labels
from muralab.data.manifest_builder import Draft, build_manifest
from muralab.data.scan import Scan, Unused, count_reasons, scan_folder, spell, unused_note
from muralab.data.studies import check_grouping
from muralab.errors import DataError, SettingsError
from muralab.tracking import RunWriter, claim_run, open_store


def run(config: ManifestConfig, environment: Environment) -> Draft:
    """Describe every picture of a folder in one table, and list beside it what is not used.

    Raises:
        MuraLabError: there is no picture, the labels fit none, or the table cannot be written.
    """
    _check(config)
    if environment.run_id:
        claim_run(open_store(environment.tracking_uri), environment.run_id)
    console = build_console()
    labels = None if config.labels is None else read_labels(config.labels, config.columns)
    with Keepalive(console):
        scan = scan_folder(config.folder, progress=build_progress(console)("opening files"))
        draft = build_manifest(
            _without_own_files(scan, config),
            folder=config.folder,
            base=config.out.parent,
            study=config.study,
            part=config.part,
            labels=labels,
        )
    write_table(draft.table, config.out)
    _write_unused(draft.unused, config)
    for line in _summary(draft, config):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if environment.run_id:
        _log(draft, environment)
    return draft


def _check(config: ManifestConfig) -> None:
    check_grouping(config.study)
    if not config.folder.is_dir():
        state = "is not a folder" if config.folder.exists() else "does not exist"
        raise DataError(f"folder={config.folder} {state}. Give the folder of an export.")
    check_out(config.out)
    if config.labels is None and config.out.exists():  # its labels may have been entered by hand
        raise SettingsError(
            f"out={config.out} exists, and without labels=<table> it would be replaced by a table without labels. "
            "Remove it, give another name, or give the table of labels."
        )


def _unused_path(config: ManifestConfig) -> Path:
    return config.out.with_name(f"{config.out.stem}.unused.csv")


def _without_own_files(scan: Scan, config: ManifestConfig) -> Scan:
    """The scan without the tables of this command, which may lie in the folder."""
    own = {path.absolute() for path in (config.out, _unused_path(config), config.labels) if path is not None}
    others = [one for one in scan.unused if (config.folder / one.name).absolute() not in own]
    return Scan(pictures=scan.pictures, unused=others, unlisted=scan.unlisted)


def _write_unused(unused: Sequence[Unused], config: ManifestConfig) -> None:
    rows = [{"file": spell(one.name), "reason": one.reason, "detail": spell(one.detail)} for one in unused]
    if rows:
        write_table(pd.DataFrame(rows), _unused_path(config))
    else:
        _unused_path(config).unlink(missing_ok=True)


def _summary(draft: Draft, config: ManifestConfig) -> list[str]:
    table = draft.table
    lines = [f"Note: {note}" for note in draft.notes]
    lines += [f"Note: {note}" for note in unused_note(draft.unused, str(config.folder))]
    if draft.unused:
        lines.append(f"All of them are listed in {spell(_unused_path(config))}.")
    parts = ", ".join(f"{count:,} {part}" for part, count in table["part"].value_counts().items())
    n_patients = table["patient"].nunique()
    lines.append(
        f"{len(table):,} pictures ({parts}) of {_count_studies(table):,} studies and {n_patients:,} patients; "
        f"the manifest is {spell(config.out)}. It names patients: keep it where the pictures are."
    )
    if table["label"].isna().all():
        return [*lines, "Its column label is empty: fill it in, or run again with labels=<table>."]
    n_abnormal = _count_studies(table[table["label"] == 1])
    lines.append(f"{n_abnormal:,} studies are abnormal, {_count_studies(table) - n_abnormal:,} normal. Next:")
    part = shlex.quote(str(table["part"].mode().iloc[0]))
    data = shlex.quote(spell(config.out))
    return [*lines, f"  muralab explore --data {data}", f"  muralab tune --data {data} --part {part}"]


def _count_studies(table: pd.DataFrame) -> int:
    return len(table[["patient", "study"]].drop_duplicates())


def _log(draft: Draft, environment: Environment) -> None:
    """Log counts alone: the table holds names of patients."""
    counts: dict[str, Any] = {
        "pictures": len(draft.table),
        "studies": _count_studies(draft.table),
        "patients": draft.table["patient"].nunique(),
        "unused": len(draft.unused),
    }
    with RunWriter(open_store(environment.tracking_uri)) as writer:
        run_id = writer.adopt_run(str(environment.run_id), {}, kind="manifest")
        writer.log_epoch(run_id, 0, counts)
        reasons = [{"reason": reason, "files": count} for reason, count in count_reasons(draft.unused).items()]
        writer.log_table(run_id, pd.DataFrame(reasons, columns=["reason", "files"]), "unused.csv")
        writer.finish(run_id)
