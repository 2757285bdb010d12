"""`label_corrections` in every command that reads data: what is trained on, logged, evaluated and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from muralab.data.files import digest_bytes
from muralab.tracking import RunRecord, Store, download_artifact
from tests.cli.conftest import SMALL, Muralab, all_runs, flags, refused
from tests.commands.conftest import interrupt_after
from tests.conftest import write_easy_tree
from tests.fixtures.manifests import Rows, rows_of, write_csv

QUICK = {"recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1}
PLANTED = "mustermann"
OF_TEST = "valid/XR_WRIST/patient00049/study1_positive"
OF_TRAIN = "train/XR_WRIST/patient00010/study1_negative"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_easy_tree(tmp_path / "data" / "MURA-v1.1")


@pytest.fixture
def read(tmp_path: Path) -> Path:
    """What readers decided: one label of train and one of test are wrong, one is right."""
    rows: Rows = [
        {"study": study, "label": label, "reader": f"Dr. {PLANTED}", "reason": f"told by {PLANTED}"}
        for study, label in ((OF_TEST, 0), (OF_TRAIN, 1), (OF_TRAIN.replace("00010", "00014"), 0))
    ]
    return write_csv(tmp_path / "read.csv", rows)


def only(store: Store, kind: str) -> RunRecord:
    return max((run for run in all_runs(store) if run.kind == kind), key=lambda run: run.started_s)


def n_abnormal(run: RunRecord) -> int:
    return int(run.predictions["test"].drop_duplicates("study")["label"].sum())


@pytest.mark.slow
def test_a_training_and_the_evaluations_of_its_model(
    muralab: Muralab, store: Store, tree: Path, read: Path, tmp_path: Path
) -> None:
    outcome = muralab("train", data=tree, label_corrections=read, **QUICK)
    assert outcome.code == 0, outcome
    assert "2 studies are relabelled (1 to abnormal, 1 to normal) and 1 confirmed by read.csv" in outcome.out
    assert "Relabelled are 1 studies of train, 0 of validation and 1 of test." in " ".join(outcome.out.split())
    trained = only(store, "train")
    check_record(store, trained, read, tmp_path)
    assert n_abnormal(trained) == 11  # of 12

    assert muralab("evaluate", model=trained.run_id).code == 0  # with the corrections of the run
    again = only(store, "evaluate")
    assert again.tags["muralab.test_fingerprint"] == trained.tags["muralab.test_fingerprint"]
    assert muralab("evaluate", model=trained.run_id, label_corrections="none").code == 0
    assert n_abnormal(only(store, "evaluate")) == 12

    read.write_text(read.read_text() + "\n")
    changed = muralab("evaluate", model=trained.run_id)
    assert changed.code == 2
    assert f"label_corrections=run: {read} has changed since the run {trained.run_id}" in changed.complaint


def check_record(store: Store, run: RunRecord, read: Path, folder: Path) -> None:
    digest = digest_bytes(read.read_bytes())
    assert run.tags["muralab.label_corrections"] == digest
    facts = json.loads(download_artifact(store, run.run_id, "label_corrections.json", folder).read_text())
    counts = {"to_abnormal": 1, "to_normal": 1, "confirmed": 1, "without_reader": 0, "readers": 1}
    assert facts == {"path": str(read), "digest": digest, **counts, "rows_of_other_parts": 0}
    rows = pd.read_csv(download_artifact(store, run.run_id, "label_corrections.csv", folder))
    assert sorted(rows[["set", "label_before", "label"]].to_numpy().tolist()) == [
        ["test", 1, 0],
        ["train", 0, 0],
        ["train", 0, 1],
    ]
    assert rows["study"].str.startswith("s-").all()
    page = download_artifact(store, run.run_id, "report.html", folder).read_text()
    assert f"relabelled (1 to abnormal, 1 to normal) and 1 confirmed by read.csv (digest {digest[:12]})" in page
    logged = [path for path in (folder / "mlruns").rglob("*") if path.is_file()]
    assert not [path for path in logged if PLANTED.encode() in path.read_bytes().lower()]


@pytest.mark.slow
def test_other_corrections_do_not_resume_a_training(
    muralab: Muralab, store: Store, tree: Path, read: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert muralab("train", data=tree, label_corrections=read, **QUICK).code == 130
    stopped = only(store, "train")
    held = read.read_bytes()
    read.write_bytes(held.replace(b"positive,0", b"positive,1"))
    outcome = muralab("train", resume=stopped.run_id)
    assert outcome.code == 2
    assert f"The label corrections {read} have changed." in outcome.complaint
    read.write_bytes(held)
    assert muralab("train", resume=stopped.run_id).code == 0


def test_the_data_are_explored_with_corrected_labels(
    muralab: Muralab, store: Store, tree: Path, read: Path, tmp_path: Path
) -> None:
    outcome = muralab("explore", data=tree, label_corrections=read)
    assert outcome.code == 0, outcome
    run = only(store, "explore")
    balance = pd.read_csv(download_artifact(store, run.run_id, "class_balance.csv", tmp_path)).set_index("split")
    assert balance["abnormal_studies"].to_dict() == {"train": 25, "valid": 11}
    assert run.tags["muralab.label_corrections"] == digest_bytes(read.read_bytes())


@pytest.mark.parametrize("command", ["tune", "train", "explore", "compare"])
def test_bad_corrections_are_one_list(muralab: Muralab, store: Store, tree: Path, tmp_path: Path, command: str) -> None:
    rows = [row | {"study": f"{row['study']}x", "reader": "KM"} for row in rows_of(tree)]
    given = {"data": tree, "recipes": f"{SMALL},cnn"} if command == "compare" else flags(command, tree)
    read = write_csv(tmp_path / "read.csv", rows)
    outcome = refused(muralab, store, command, **given, label_corrections=read)
    problems = f"The table of label corrections {read} has 108 problems: 1. row 2: there is no study"
    assert problems in outcome.complaint
    assert "... and 88 more" in outcome.err
