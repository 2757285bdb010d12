"""Commands on a manifest: the tree's split and figures, what is logged, other hospitals' tables, bad tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from muralab.tracking import RunRecord, Store, download_artifact, read_datasets
from tests.cli.conftest import SMALL, Muralab, all_runs, flags, refused
from tests.fixtures.manifests import Rows, rows_of, without, write_csv, write_german_csv

QUICK = {"recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1}


@pytest.fixture
def rows(easy_tree: Path) -> Rows:
    return [row | {"age": 20.5 + number, "site": "ab"[number % 2]} for number, row in enumerate(rows_of(easy_tree))]


@pytest.fixture
def table(easy_tree: Path, rows: Rows, tmp_path: Path) -> dict[str, object]:
    """The options that name a manifest of the easy tree."""
    return {"data": write_csv(tmp_path / "rows.csv", rows), "root": easy_tree}


def by_kind(store: Store, kind: str) -> list[RunRecord]:
    return sorted((run for run in all_runs(store) if run.kind == kind), key=lambda run: run.started_s)


@pytest.mark.slow
def test_a_manifest_of_a_tree_gives_its_split_and_its_figures(
    muralab: Muralab, store: Store, easy_tree: Path, table: dict[str, object], tmp_path: Path
) -> None:
    assert [muralab("train", **own, **QUICK).code for own in ({"data": easy_tree}, table)] == [0, 0]
    tree, manifest = by_kind(store, "train")
    assert manifest.tags["muralab.split_fingerprint"] == tree.tags["muralab.split_fingerprint"]
    figures = [{k: v for k, v in run.metrics.items() if "second" not in k} for run in (tree, manifest)]
    assert figures[0] == figures[1]
    pd.testing.assert_frame_equal(manifest.predictions["test"], tree.predictions["test"])
    assert (tree.tags["muralab.protocol"], manifest.tags["muralab.protocol"]) == ("valid-as-test", "manifest")
    check_record(store, manifest, table, tmp_path / "logged")


def check_record(store: Store, run: RunRecord, table: dict[str, object], folder: Path) -> None:
    facts = json.loads(download_artifact(store, run.run_id, "manifest.json", folder).read_text())
    assert facts["digest"] == run.tags["muralab.manifest"]
    assert (facts["path"], facts["root"], facts["rows"]) == (str(table["data"]), str(table["root"]), 108)
    assert facts["further_columns"] == {"age": "double", "site": "string"}
    assert facts["used"] == {"images": 108, "studies": 72, "patients": 72, "abnormal": 72}
    test = read_datasets(store, run.run_id)["test"]
    assert (test.source, test.root) == (str(table["data"]), table["root"])


@pytest.mark.long
def test_evaluations_find_the_runs_own_manifest_and_others(
    muralab: Muralab, store: Store, rows: Rows, table: dict[str, object], easy_tree: Path, tmp_path: Path
) -> None:
    renamed = [{"fracture": row["label"], **row} for row in without(rows, "split")]
    path = write_csv(tmp_path / "own.csv", without(renamed, "label"))
    given = {"data": path, "root": easy_tree, "columns": "label:fracture"}
    assert muralab("train", **given, test_fraction=0.3, seed=3, **QUICK).code == 0
    (trained,) = all_runs(store)

    assert muralab("evaluate", model=trained.run_id).code == 0
    same = by_kind(store, "evaluate")[-1]
    assert same.tags["muralab.split_fingerprint"] == trained.tags["muralab.split_fingerprint"]
    assert same.tags["muralab.protocol"] == "test_fraction=0.3"
    assert same.tags["muralab.learnt_images"] == "0"

    outcome = muralab("evaluate", model=trained.run_id, **table)  # the same images, another test set
    assert outcome.code == 0, outcome
    assert int(by_kind(store, "evaluate")[-1].tags["muralab.learnt_images"]) > 0

    apart = write_csv(tmp_path / "test.csv", without([row for row in rows if row["split"] == "test"], "study"))
    assert muralab("evaluate", model=trained.run_id, data=apart, root=easy_tree).code == 0
    assert len(by_kind(store, "evaluate")[-1].predictions["test"]) == 36

    unsplit = write_csv(tmp_path / "unsplit.csv", without(rows, "split"))
    refusal = muralab("evaluate", model=trained.run_id, data=unsplit, root=easy_tree)
    assert refusal.code == 2
    assert "has no column split, and the model was not trained on it. Give set=all" in refusal.complaint
    assert muralab("evaluate", model=trained.run_id, data=unsplit, root=easy_tree, set="all").code == 0
    assert len(by_kind(store, "evaluate")[-1].predictions["test"]) == 108


@pytest.mark.long
def test_a_report_of_an_evaluation_on_test_images_alone(
    muralab: Muralab, store: Store, rows: Rows, table: dict[str, object], easy_tree: Path, tmp_path: Path
) -> None:
    assert muralab("train", **table, **QUICK).code == 0
    apart = write_csv(tmp_path / "test.csv", [row for row in rows if row["split"] == "test"])
    assert muralab("evaluate", model=all_runs(store)[0].run_id, data=apart, root=easy_tree).code == 0
    outcome = muralab("report", runs=by_kind(store, "evaluate")[0].run_id)
    assert outcome.code == 0, outcome
    assert "Leakage" not in outcome.out
    assert "not known" not in outcome.out


def test_a_german_spreadsheet_is_explored(
    muralab: Muralab, store: Store, rows: Rows, easy_tree: Path, tmp_path: Path
) -> None:
    german = [row | {"site": ("Köln", "Gießen")[number % 2]} for number, row in enumerate(rows)]
    path = write_german_csv(tmp_path / "Röntgen.csv", german)
    outcome = muralab("explore", data=path, root=easy_tree)
    assert outcome.code == 0, outcome
    assert "  age: numbers from 20.5 to 127.5, median 74; 0 missing" in outcome.out
    assert "  site: 2 values: Köln (54), Gießen (54); 0 missing" in outcome.out
    (run,) = all_runs(store)
    assert json.loads(run.tags["muralab.columns"])["image"] == "image"
    assert not [row for row in outcome.out.splitlines() if "old release" in row]


@pytest.mark.parametrize("command", ["tune", "train", "explore"])
def test_a_bad_manifest_is_one_list(
    muralab: Muralab, store: Store, rows: Rows, easy_tree: Path, tmp_path: Path, command: str
) -> None:
    bad = [row | {"image": f"gone{number}.png"} if number < 30 else row for number, row in enumerate(rows)]
    bad[40]["label"], bad[-3]["split"] = "perhaps", "train"  # of a test patient with two images
    path = write_csv(tmp_path / "rows.csv", [*bad, bad[60]])
    outcome = refused(muralab, store, command, **{**flags(command, path), "root": easy_tree})
    assert f"The manifest {path} has 33 problems: 1. row " in outcome.complaint
    for reason in ("row 2: there is no file gone0.png", "row 42: 'perhaps' is not a label", "is also in row 62"):
        assert reason in outcome.err
    for line in ("is in test, and in train in row", "... and 13 more", "give root=<folder>"):
        assert line in outcome.err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"protocol": "valid-as-test"}, "protocol=valid-as-test: a manifest has no official folders"),
        ({"test_fraction": "0.2"}, "test_fraction=0.2: the manifest"),
        ({"test_fraction": "0.2", "test_folds": "1/5"}, "test_fraction=0.2 and test_folds=5: give one of the two"),
        ({"test_fraction": "2"}, "test_fraction=2: expected a number from 0.01 to 0.9"),
        ({"test_folds": "6/5"}, "test_folds=6/5: expected a number of folds from 2 to 50"),
        ({"columns": "picture:path"}, "columns=picture:path: a manifest has no 'picture' to map."),
        ({"columns": "label"}, "columns=label: 'label' is not of the form column:name"),
        ({"columns": "label:fracture"}, "there is no column 'fracture'"),
        ({"root": "/absent"}, "root=/absent is not a folder"),
    ],
    ids=str,
)
def test_options_that_a_manifest_refuses(
    muralab: Muralab, store: Store, table: dict[str, object], values: dict[str, Any], message: str
) -> None:
    outcome = refused(muralab, store, "train", **{**flags("train", Path(str(table["data"]))), **table, **values})
    assert message in outcome.complaint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"root": "/data"}, "root=/data: only a manifest (CSV, Parquet) has these"),
        ({"columns": "label:fracture"}, "columns: only a manifest (CSV, Parquet) has these"),
        ({"test_fraction": "0.2"}, "test_fraction=0.2: a MURA tree has its own test set"),
        ({"test_folds": "5"}, "test_folds=5: a MURA tree has its own test set"),
    ],
    ids=str,
)
def test_options_of_manifests_that_a_tree_refuses(
    muralab: Muralab, store: Store, tiny_tree: Path, values: dict[str, Any], message: str
) -> None:
    assert message in refused(muralab, store, "train", **flags("train", tiny_tree), **values).complaint
