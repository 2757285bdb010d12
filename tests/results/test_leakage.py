"""What `run` stands for in the parameters of `evaluate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from muralab.demo.dataset import default_folder
from muralab.errors import SettingsError
from muralab.results.leakage import own_data
from muralab.tracking import LoggedData, RunRecord

RECORD = RunRecord(run_id="1", name="cnn", status="FINISHED", experiment_id="0", part="hand")


def logged(path: Path) -> LoggedData:
    return LoggedData(name="mura-hand-training", digest="0", source=str(path))


def test_run_is_the_trees_path_and_its_part() -> None:
    assert own_data(RECORD, "run", "run", logged(Path("/data/MURA-v1.1"))) == ("/data/MURA-v1.1", "hand")


def test_the_demo_is_drawn_again_where_it_was_cleared_away() -> None:
    assert own_data(RECORD, "run", "run", logged(default_folder() / "MURA-v1.1")) == ("demo", "hand")


def test_what_is_given_holds() -> None:
    assert own_data(RECORD, "/other", "all", logged(Path("/data/MURA-v1.1"))) == ("/other", "all")


def test_a_run_without_data_is_told() -> None:
    assert own_data(RECORD, "demo", "run", None) == ("demo", "hand")
    with pytest.raises(SettingsError, match="does not name its data: give data=<path>"):
        own_data(RECORD, "run", "run", None)
