"""A tree of 56 images whose files a test may change, and its audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from muralab.data.audit.report import Audit, audit_images
from muralab.data.mura import read_index


@pytest.fixture
def table(tmp_path: Path, write_tree) -> pd.DataFrame:
    return read_index(write_tree(tmp_path, parts=("wrist",), n_train=20, n_valid=8), "wrist")


@pytest.fixture
def audit(table: pd.DataFrame, tmp_path: Path) -> Callable[[], Audit]:
    """A function that audits the table as it is now."""
    return lambda: audit_images(table, folder=tmp_path / "audit")


@pytest.fixture
def positions(table: pd.DataFrame) -> Callable[[str, int], list[int]]:
    """A function of (split, label) -> one row per patient."""

    def find(split: str, label: int) -> list[int]:
        rows = table[(table["split"] == split) & (table["label"] == label)]
        return rows.drop_duplicates("patient").index.tolist()

    return find


@pytest.fixture
def copy_file(table: pd.DataFrame) -> Callable[[int, int], object]:
    """A function that replaces the file of one row by a copy of another's."""
    return lambda source, target: shutil.copy(table["path"][source], table["path"][target])
