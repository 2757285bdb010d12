"""`doctor` lists what killed commands left, removes what is safe with --fix, and prints how to resume a search."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from muralab import scratch
from muralab.config import installation
from muralab.config.installation import check_installation, installed_versions
from muralab.tracking import Store, read_run, start_run
from muralab.tracking.journal import Journal
from muralab.tracking.operations import Batch
from muralab.tracking.stored_names import stored_tags
from muralab.tracking.tags import Tag
from tests.cli.conftest import Muralab


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, with what a killed command left in it."""
    root = tmp_path / "temporary"
    left = root / "muralab-left"
    left.mkdir(parents=True)
    (left / scratch.LOCK).touch()
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    monkeypatch.setattr(scratch, "SHORT_ROOTS", ())
    return root


@pytest.fixture
def sweeps(tmp_path: Path) -> Path:
    """The folders of searches: one that can be resumed, one half removed."""
    sweeps = tmp_path / "cache" / "muralab" / "sweeps"
    for name in ("abc", ".removed-old", "new-123"):
        (sweeps / name).mkdir(parents=True)
    (sweeps / "abc" / "split.csv").touch()
    plan = {"kind": "tune", "options": {"part": "wrist"}, "specs": []}
    (sweeps / "abc" / "plan.json").write_text(json.dumps(plan))
    return sweeps


def test_everything_is_listed_and_stays(muralab: Muralab, sweeps: Path) -> None:
    outcome = muralab("doctor")
    assert outcome.code == 0
    assert outcome.out.rstrip().endswith("make tune PART=wrist ARGS='-P resume=abc'")
    assert f"  {sweeps / '.removed-old'} (" in outcome.out
    assert {path.name for path in sweeps.iterdir()} == {"abc", ".removed-old", "new-123"}


def test_fix_removes_what_nobody_needs_and_keeps_what_can_be_resumed(
    muralab: Muralab,
    sweeps: Path,
    root: Path,
) -> None:
    assert muralab("doctor", fix="true").code == 0
    assert [path.name for path in sweeps.iterdir()] == ["abc"]
    assert list(root.iterdir()) == []


def test_fix_needs_no_value(muralab: Muralab, sweeps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from muralab.cli import expand_flags

    assert expand_flags(["doctor", "--fix"]) == ["doctor", "--fix", "true"]
    assert expand_flags(["doctor", "--fix", "false"]) == ["doctor", "--fix", "false"]
    assert expand_flags(["tune", "--dry-run", "--part", "hand"]) == ["tune", "--dry-run", "true", "--part", "hand"]
    assert expand_flags(["tune", "--dry-run", "part=hand"]) == ["tune", "--dry-run", "true", "part=hand"]
    assert expand_flags(["tune", "--part", "--fix"]) == ["tune", "--part", "--fix"]


def test_runs_of_dead_processes_are_closed_by_fix_only(muralab: Muralab, store: Store) -> None:
    run_id = start_run(store, experiment="e", kind="train", name="x")
    started = read_run(store, run_id).tags[Tag.PROCESS_STARTED].rpartition(".")[0]
    for key, value in stored_tags({Tag.PROCESS_STARTED: f"{started}.7"}).items():
        store.client.set_tag(run_id, key, value)
    assert f"(--fix: closed):\n  {run_id}" in muralab("doctor").out
    assert read_run(store, run_id).status == "RUNNING"
    assert f"closed:\n  {run_id}" in muralab("doctor", fix="true").out
    assert read_run(store, run_id).status == "KILLED"


def test_a_store_that_does_not_answer_is_a_finding(
    muralab: Muralab,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    outcome = muralab("doctor")
    assert outcome.code == 0
    assert "does not answer" in outcome.out


def test_a_journal_that_waits_is_listed(muralab: Muralab, store: Store, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "cache" / "muralab" / "journals", store_uri=store.uri, command="tune")
    journal.add("abc", Batch(tags={"kept": "1"}))
    journal.close(finished=False)
    assert "(muralab sync: written):\n  1 entries of `tune` for sqlite:///" in muralab("doctor").out


def test_packages_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setattr(installation, "PYTHONS", ((3, 1),))
    monkeypatch.setattr(installation, "_driver", lambda: "")
    problems = check_installation("sqlite:///m.db")
    assert any("is not supported. Use 3.11, 3.12 or 3.13" in text for text in problems)
    assert "no-such-package is not installed: pip install -r requirements.txt" in problems
    assert installed_versions()["no-such-package"] == "missing"


def test_a_gpu_that_torch_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(installation, "_driver", lambda: "470.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert any("CUDA 12.8 needs a newer driver than 470.1" in text for text in check_installation("sqlite:///m.db"))
