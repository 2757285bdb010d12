"""`demo` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Muralab


def test_it_is_written_as_an_export_or_as_a_tree_with_the_next_commands(muralab: Muralab, tmp_path: Path) -> None:
    outcome = muralab("demo", folder=tmp_path / "pacs", images=20)
    assert outcome.code == 0, outcome
    assert f"muralab manifest {tmp_path}/pacs/export --labels {tmp_path}/pacs/labels.csv" in outcome.out
    outcome = muralab("demo", folder=tmp_path / "tree", layout="mura", images=20)
    assert outcome.code == 0, outcome
    assert len(list((tmp_path / "tree").rglob("image*.png"))) == 20
    outcome = muralab("demo", folder=tmp_path / "hands", layout="spreadsheet", images=20)
    assert outcome.code == 0, outcome
    assert f"muralab explore --data {tmp_path}/hands/radiographs.csv --part hand" in outcome.out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layout": "dicom"}, "layout=dicom is unknown."),
        ({"images": "3"}, "images=3: expected a whole number from 20"),
    ],
)
def test_an_impossible_demo_is_refused(muralab: Muralab, tmp_path: Path, values: dict, message: str) -> None:
    outcome = muralab("demo", folder=tmp_path / "x", **values)
    assert outcome.code == 2
    assert message in outcome.complaint
