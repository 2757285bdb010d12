"""A store that cannot be reached, a folder that cannot be written: exit code 2 and one paragraph, quickly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from muralab.tracking import Store, is_alive, read_run
from tests.cli.conftest import COMMANDS, Muralab, flags, refused


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_that_cannot_be_reached(
    muralab: Muralab, tiny_tree: Path, command: str, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_port)
    outcome = muralab(command, **flags(command, tiny_tree))
    assert outcome.code == 2
    assert f"The tracking server {closed_port} does not answer" in outcome.complaint
    assert "correct MLFLOW_TRACKING_URI" in outcome.complaint


IMPOSSIBLE = {
    "tune": {"data": "empty"},
    "train": {"data": "empty"},
    "compare": {"data": "empty"},
    "explore": {"data": "empty"},
    "evaluate": {"model": "absent"},
    "promote": {"run": "absent"},
    "report": {"runs": "absent"},
    "predict": {"images": "/absent"},
}


@pytest.mark.parametrize("command", IMPOSSIBLE)
def test_the_run_of_mlflow_run_is_claimed_before_anything_slow(
    muralab: Muralab, store: Store, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree without images has its part, so that it is refused late."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "train" / "XR_WRIST").mkdir(parents=True)
    run_id = store.client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert muralab(command, **IMPOSSIBLE[command]).code == 2
    assert is_alive(read_run(store, run_id).tags)


@pytest.mark.slow
def test_an_unreachable_store_ends_a_fresh_process_quickly(tiny_tree: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root / 'platform'}:{root}", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "muralab", "tune", "--data", str(tiny_tree)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("muralab: The tracking server http://127.0.0.1:9 does not answer")


@pytest.mark.parametrize("uri", ["https://me:secret@127.0.0.1:9", "postgresql://me:secret@127.0.0.1:9/runs"])
def test_a_password_is_not_printed(
    muralab: Muralab, tiny_tree: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    outcome = muralab("tune", **flags("tune", tiny_tree))
    assert outcome.code == 2
    assert "me:***@127.0.0.1:9" in outcome.complaint
    assert "secret" not in outcome.out + outcome.err


def test_a_deleted_experiment_leaves_no_run(muralab: Muralab, store: Store, tiny_tree: Path) -> None:
    store.client.delete_experiment(store.client.create_experiment("mura-wrist"))
    outcome = refused(muralab, store, "train", **flags("train", tiny_tree), epochs="0+1")
    assert "The experiment 'mura-wrist'" in outcome.complaint
    assert "Check that the store runs" not in outcome.complaint


def test_a_cache_that_cannot_be_written(
    muralab: Muralab, store: Store, tiny_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    outcome = refused(muralab, store, "train", **flags("train", tiny_tree))
    assert f"cannot be written to {tmp_path / 'file'}" in outcome.complaint


@pytest.mark.parametrize("free", [0, 2**18])
def test_a_disk_that_is_too_small_for_the_images_or_for_the_sweep(
    muralab: Muralab, store: Store, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    outcome = refused(muralab, store, "tune", **flags("tune", tiny_tree), image_size=64, set="model.filters=2000")
    assert "where 0.0 GiB are free. Free some, name a folder on a larger disk by XDG_CACHE_HOME" in outcome.complaint
    assert ("Plan" in outcome.out) == (free > 0)
