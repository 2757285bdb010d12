"""`manifest` from the command line: an export of a PACS becomes a table that other commands take."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from muralab.tracking import Store
from tests.cli.conftest import Muralab, all_runs
from tests.fixtures.documented import undocumented


@pytest.fixture
def export(pacs_export: Path) -> Path:
    return pacs_export


def describe(muralab: Muralab, export: Path, out: Path, **values: object) -> tuple[pd.DataFrame, str]:
    outcome = muralab("manifest", **{"folder": export, "out": out, "labels": export.parent / "labels.csv", **values})
    assert outcome.code == 0, outcome
    return pd.read_csv(out, dtype=str), outcome.out


def test_an_export_becomes_a_manifest_and_a_list_of_what_is_not_used(
    muralab: Muralab, export: Path, tmp_path: Path
) -> None:
    table, out = describe(muralab, export, tmp_path / "m.csv")
    assert len(table) == 30
    assert set(table["label"]) == {"0", "1"}
    assert {"image", "label", "patient", "study", "part", "view", "laterality", "device", "age", "sex"} <= set(table)
    unused = pd.read_csv(tmp_path / "m.unused.csv")
    assert set(unused["reason"]) == {"DICOMDIR", "presentation state (PR)", "report (SR)"}
    assert f"{len(unused)} files found in {export} are not used: " in out
    assert f"muralab tune --data {tmp_path}/m.csv --part wrist" in out


def test_the_folder_may_be_given_without_its_name(
    muralab: Muralab, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from muralab import cli

    monkeypatch.setattr(sys, "argv", ["muralab", "manifest", str(export), "--out", str(tmp_path / "m.parquet")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert pd.read_parquet(tmp_path / "m.parquet")["label"].isna().all()


@pytest.mark.slow
def test_explore_takes_the_manifest(muralab: Muralab, store: Store, export: Path, tmp_path: Path) -> None:
    describe(muralab, export, tmp_path / "m.csv")
    outcome = muralab("explore", data=tmp_path / "m.csv")
    assert outcome.code == 0, outcome
    (run,) = all_runs(store)
    assert run.tags["muralab.parts"] == "hand,wrist"
    assert run.metrics["audit_unreadable"] == 0


def test_the_tables_of_the_command_are_not_counted_as_unused(muralab: Muralab, export: Path) -> None:
    folder = export.parent
    first, _ = describe(muralab, export, folder / "m.csv", folder=folder)
    again, out = describe(muralab, export, folder / "m.csv", folder=folder)
    assert first.equals(again)
    assert "SYNTHETIC.txt" in out
    assert "m.csv: " not in out
    assert "labels.csv: " not in out
    for name in ("m.csv", "m.unused.csv"):
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folder": "nowhere"}, "nowhere does not exist. Give the folder of an export."),
        ({"out": "m.xls"}, "expected a name that ends in .csv or .parquet"),
        ({"out": "none/m.csv"}, "none does not exist."),
        ({"labels": "nolabels.csv"}, "nolabels.csv cannot be read: No such file or directory"),
        ({"study": "fiel"}, "study=fiel: expected auto or folder or file. Did you mean 'file'?"),
        ({"part": "a/b"}, "part=a/b: expected header, or a body part"),
    ],
)
def test_bad_options_are_refused(
    muralab: Muralab, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = muralab("manifest", **{"folder": export, **values})
    assert outcome.code == 2
    assert message in outcome.complaint
    assert "Traceback" not in outcome.err


def test_labels_that_were_entered_by_hand_are_not_replaced(muralab: Muralab, export: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("by hand")
    outcome = muralab("manifest", folder=export, out=tmp_path / "m.csv")
    assert outcome.code == 2
    assert "would be replaced by a table without labels" in outcome.complaint
    assert (tmp_path / "m.csv").read_text() == "by hand"


@pytest.mark.slow
def test_under_mlflow_run_its_run_holds_counts_and_no_names(
    muralab: Muralab, store: Store, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from muralab.tracking import read_run, start_run

    run_id = start_run(store, experiment="lab", kind="tune", name="from mlflow run")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    describe(muralab, export, tmp_path / "m.csv")
    record = read_run(store, run_id)
    assert (record.kind, record.status, record.metrics["pictures"]) == ("manifest", "FINISHED", 30)
    assert undocumented(store, run_id) == []
    assert "SYN0" not in (tmp_path / "mlflow.db").read_bytes().decode("latin-1")
