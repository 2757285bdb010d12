"""The table that a command writes where its user asks for it: CSV or Parquet, complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.scan import spell
from muralab.errors import SettingsError

SUFFIXES = (".csv", ".parquet")


def check_out(out: Path) -> None:
    """Check where a table is to be written, before any work is done for it.

    Raises:
        SettingsError: another suffix, a folder, or a place that cannot be written to.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"out={out}: expected a name that ends in .csv or .parquet.")
    if not out.parent.is_dir():
        raise SettingsError(f"out={out}: the folder {out.parent} does not exist.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise SettingsError(f"out={out} is a folder, or lies in one that is not writable.")


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write a table in the format that its name ends in.

    Raises:
        SettingsError: it cannot be written, or holds text that is not UTF-8.
    """
    try:
        with atomic_path(out) as path, path.open("wb") as file:  # pyarrow cannot open a name that is not UTF-8
            if out.suffix.lower() == ".csv":
                table.to_csv(file, index=False)
            else:
                table.to_parquet(file, index=False)
    except UnicodeEncodeError:
        raise SettingsError(
            f"{spell(out)} cannot hold the paths of its pictures: a folder has a name that is not UTF-8."
        ) from None
    except OSError as error:
        raise SettingsError(f"out={out} cannot be written ({error.strerror or error}).") from error
