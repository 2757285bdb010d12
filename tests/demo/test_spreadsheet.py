"""The synthetic spreadsheet: a picture for each row, whole studies, and nothing in it that gives the label away."""

from __future__ import annotations

from pathlib import Path

import cv2
import pandas as pd
import pytest

from muralab.demo.dataset import is_synthetic
from muralab.demo.spreadsheet import HEADINGS, write_spreadsheet
from muralab.errors import DataError

N_IMAGES = 30


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spreadsheet(tmp_path_factory.mktemp("lab") / "hands", n_images=N_IMAGES)


def test_every_row_names_a_picture_and_every_picture_has_a_row(table):
    rows = pd.read_csv(table)
    assert tuple(rows.columns) == HEADINGS
    assert sorted(rows["file"]) == sorted(f"pictures/{path.name}" for path in (table.parent / "pictures").iterdir())
    assert len(rows) == N_IMAGES
    assert min(min(cv2.imread(str(table.parent / name)).shape[:2]) for name in rows["file"]) > 100


def test_a_study_has_one_label_and_one_patient_and_both_classes_occur(table):
    rows = pd.read_csv(table)
    assert set(rows["fracture"]) == {0, 1}
    assert rows.groupby("study")[["fracture", "patient", "age", "device"]].nunique().max().tolist() == [1, 1, 1, 1]


def test_it_is_known_as_synthetic_and_written_once(table):
    before = table.stat().st_mtime_ns
    assert is_synthetic(table.parent)
    assert write_spreadsheet(table.parent, n_images=N_IMAGES).stat().st_mtime_ns == before
    with pytest.raises(DataError, match="holds other data than this demo"):
        write_spreadsheet(table.parent, n_images=N_IMAGES + 1)
