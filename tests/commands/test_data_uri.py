"""Commands on data that a URI names: the figures of the same files in a folder, and copies that are fetched again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from muralab.commands import train
from muralab.tracking import Store
from tests.cli.conftest import SMALL, Muralab, all_runs, refused
from tests.fixtures.manifests import rows_of, write_csv

QUICK = {"recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1}


@pytest.mark.slow
def test_training_and_evaluating_by_uri_gives_the_figures_of_the_folder(
    muralab: Muralab, store: Store, easy_tree: Path
) -> None:
    for data in (str(easy_tree), f"file://{easy_tree}"):
        assert muralab("train", data=data, **QUICK).code == 0
    folder, uri = sorted((run for run in all_runs(store) if run.kind == "train"), key=lambda run: run.started_s)
    assert uri.tags["muralab.data_uri"] == f"file://{easy_tree}"
    assert "muralab.data_uri" not in folder.tags
    figures = [{k: v for k, v in run.metrics.items() if "second" not in k} for run in (folder, uri)]
    assert figures[0] == figures[1]
    copy = Path(uri.tags["muralab.data_path"])
    shutil.rmtree(copy)
    done = muralab("evaluate", model=uri.run_id)
    assert done.code == 0, done.err
    assert copy.is_dir()
    evaluated = next(run for run in all_runs(store) if run.kind == "evaluate")
    assert evaluated.metrics["test_study_auroc"] == uri.metrics["test_study_auroc"]


@pytest.mark.slow
def test_a_manifest_with_columns_of_its_own_is_resumed_and_evaluated_by_its_uri(
    muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = shutil.copytree(easy_tree, tmp_path / "bucket")
    rows = [{"file": row.pop("image"), **row, "part": "hand"} for row in rows_of(easy_tree)]
    uri = f"file://{write_csv(bucket / 'rows.csv', rows)}"
    with monkeypatch.context() as patch:
        patch.setattr(train, "train", interrupt)
        assert muralab("train", data=uri, part="hand", columns="image:file", **QUICK).code == 130
    (run,) = all_runs(store)
    resumed = muralab("train", resume=run.run_id, data=uri)
    assert resumed.code == 0, resumed.err
    shutil.rmtree(Path(run.tags["muralab.data_path"]).parent)
    evaluated = muralab("evaluate", model=run.run_id)
    assert evaluated.code == 0, evaluated.err


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_manifest_is_explored_by_its_uri(muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path) -> None:
    shutil.copytree(easy_tree, tmp_path / "bucket")
    write_csv(tmp_path / "bucket" / "rows.csv", rows_of(easy_tree))
    done = muralab("explore", data=f"file://{tmp_path}/bucket/rows.csv")
    assert done.code == 0, done.err
    (run,) = all_runs(store)
    assert run.tags["muralab.data_uri"] == f"file://{tmp_path}/bucket/rows.csv"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "s3://ann:secret@lab/mura"}, "data=: the URI holds a password"),
        ({"data": "s3://"}, "data=s3:// names no bucket or folder"),
        ({"data": "s3://lab/ours.csv", "root": "/data"}, "root=/data: the image paths of s3://lab/ours.csv start at"),
        ({"data": "nosuch://lab/mura"}, "data=nosuch://lab/mura: Protocol not known: nosuch"),
    ],
)
def test_uris_that_cannot_be_used_are_named(
    muralab: Muralab, store: Store, options: dict[str, str], message: str
) -> None:
    assert message in refused(muralab, store, "explore", **options).err
