"""Searches that can be resumed are found, and folders that nobody needs are told from them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from muralab.tune import leftovers
from muralab.tune.leftovers import REMOVED, find_interrupted, find_unneeded, remove_sweep
from muralab.tune.sweep_lock import sweep_lock


def search(cache: Path, run_id: str, started_s: float = 1.0, **plan: object) -> Path:
    """A search's folder with its plan."""
    folder = cache / "sweeps" / run_id
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"options": {"part": "wrist"}, **plan}))
    (folder / "split.csv").touch()
    os.utime(folder / "split.csv", (started_s, started_s))
    return folder


def test_the_latest_comes_first_with_its_command(tmp_path: Path) -> None:
    search(tmp_path, "old", 1.0, kind="train")
    search(tmp_path, "new", 2.0, kind="tune")
    found = find_interrupted(tmp_path)
    assert [one.command for one in found] == [
        "make tune PART=wrist ARGS='-P resume=new'",
        "mlflow run . -e train --env-manager local -P resume=old",
    ]


def test_the_command_names_the_storage_for_other_machines(tmp_path: Path) -> None:
    plain, endpoint = "/shared/mura", "s3://lab/mura?scheme=http&endpoint_override=s3.lab:8333"
    search(tmp_path, "a", 2.0, kind="tune", options={"part": "wrist", "storage": plain})
    search(tmp_path, "b", 1.0, kind="tune", options={"part": "wrist", "storage": endpoint})
    assert [one.command for one in find_interrupted(tmp_path)] == [
        f"make tune PART=wrist ARGS='-P resume=a -P storage={plain}'",
        f"make tune PART=wrist ARGS='-P resume=b -P \"storage={endpoint}\"'",
    ]


def test_plans_of_earlier_versions_are_told_apart_by_their_options(tmp_path: Path) -> None:
    for run_id, options in (("a", {"recipe": "cnn"}), ("b", {"seeds": 5}), ("c", {"trials": 2})):
        search(tmp_path, run_id, options={"part": "wrist", **options})
    assert {one.run_id: one.kind for one in find_interrupted(tmp_path)} == {"a": "train", "c": "tune"}


def test_of_several_folds_the_run_above_them_is_resumed(tmp_path: Path) -> None:
    search(tmp_path, "fold-2", 9.0, kind="tune", options={"part": "wrist", "test_folds": [2, 5]})
    search(tmp_path, "other", 1.0, kind="tune", options={"part": "wrist", "test_folds": None})
    (tmp_path / "sweeps" / "above").mkdir()
    (tmp_path / "sweeps" / "above" / "folds.json").write_text(json.dumps({"part": "wrist", "test_folds": [0, 5]}))
    assert [one.run_id for one in find_interrupted(tmp_path)] == ["above", "other"]
    assert find_unneeded(tmp_path) == []


def test_a_running_search_is_neither_interrupted_nor_unneeded(tmp_path: Path) -> None:
    with sweep_lock(search(tmp_path, "running"), "running"), sweep_lock(tmp_path / "sweeps" / "planning", "planning"):
        assert find_interrupted(tmp_path) == []
        assert find_unneeded(tmp_path) == []


def test_folders_without_a_plan_and_comparisons_are_unneeded(tmp_path: Path) -> None:
    search(tmp_path, "kept", kind="tune")
    search(tmp_path, "comparison", kind="compare")
    (tmp_path / "sweeps" / "no-plan").mkdir()
    draft = tmp_path / "demo-v2-seed0" / f".demo-{os.uname().nodename}-{2**22 + 1}-x"
    draft.mkdir(parents=True)
    assert {path.name for path in find_unneeded(tmp_path)} == {"comparison", "no-plan", draft.name}


def test_a_half_removed_search_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = search(tmp_path, "done", kind="tune")
    monkeypatch.setattr(leftovers.shutil, "rmtree", lambda *_, **__: None)  # killed before it removed anything
    remove_sweep(folder)
    assert find_interrupted(tmp_path) == []
    assert [path.name for path in find_unneeded(tmp_path)] == [f"{REMOVED}done"]


def test_a_removed_search_leaves_nothing(tmp_path: Path) -> None:
    remove_sweep(search(tmp_path, "done"))
    remove_sweep(tmp_path / "sweeps" / "absent")
    assert list((tmp_path / "sweeps").iterdir()) == []
