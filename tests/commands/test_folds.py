"""`test_folds=3`: each fold once the test set, figures over all of them, and an interruption between two folds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from muralab.commands import train as train_command
from muralab.commands.folds import Fold, Folds, find_folds, run_over_folds
from muralab.commands.session import Session, open_session
from muralab.config.commands import TrainConfig, TuneConfig
from muralab.config.environment import Environment
from muralab.data.name_keys import NAMES_FOLDER
from muralab.data.names import code_names
from muralab.errors import StorageError, StoreError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.experiment import run_trial
from muralab.storage import Storage
from muralab.tracking import RunRecord, Store, download_artifact, read_children
from muralab.tracking.tags import Tag
from muralab.tune import sweep_owner
from muralab.tune.leftovers import find_interrupted
from muralab.tune.plan import source_of
from tests.cli.conftest import SMALL, Muralab, all_runs
from tests.fixtures.documented import undocumented
from tests.fixtures.manifests import rows_of, without, write_csv

QUICK = {"recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1, "test_folds": 3}


@pytest.fixture
def table(easy_tree: Path, tmp_path: Path) -> dict[str, object]:
    rows = without(rows_of(easy_tree), "split")
    return {"data": write_csv(tmp_path / "rows.csv", rows), "root": easy_tree}


def parent_and_folds(store: Store) -> tuple[RunRecord, list[RunRecord]]:
    (parent,) = (run for run in all_runs(store) if run.name.endswith(" folds"))
    return parent, sorted(read_children(store, parent.run_id, predictions=True), key=lambda run: run.name)


def interrupt_in_fold(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def run(spec: Any) -> Generator[Any]:
        started.append(spec)
        for result in run_trial(spec):
            yield result
            if len(started) == number:
                raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "run_trial", run)


@pytest.mark.long
def test_every_patient_is_tested_once_also_after_an_interruption(
    muralab: Muralab, store: Store, table: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in_fold(2, monkeypatch)
    stopped = muralab("train", **table, **QUICK)
    monkeypatch.undo()
    parent, folds = parent_and_folds(store)
    assert stopped.code == 130
    assert f"resume={parent.run_id}" in stopped.out
    assert [(run.name[-6:], run.status) for run in folds] == [("fold 1", "FINISHED"), ("fold 2", "KILLED")]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outcome = muralab("train", resume=parent.run_id)
    assert outcome.code == 0, outcome
    parent, folds = parent_and_folds(store)
    assert [(run.name[-6:], run.status) for run in folds] == [(f"fold {n}", "FINISHED") for n in (1, 2, 3)]
    patients = [name for run in folds for name in run.predictions["test"]["patient"].unique()]
    assert len(patients) == len(set(patients)) == 72
    check_figures(store, parent, tmp_path, outcome.out)


def check_figures(store: Store, parent: RunRecord, folder: Path, out: str) -> None:
    table = pd.read_csv(download_artifact(store, parent.run_id, "folds.csv", folder), dtype={"fold": str})
    assert table["fold"].tolist() == ["1", "2", "3", "all", "mean"]
    studies = pd.read_csv(download_artifact(store, parent.run_id, "out_of_fold.csv", folder))
    assert len(studies) == studies["study"].nunique() == 72
    assert parent.metrics["folds_study_auroc"] == table.set_index("fold").loc["all", "auroc"]
    assert parent.tags["muralab.ended"] == "finished"
    assert "3 folds: 72 studies of 72 patients, each tested once by a model trained without them" in out


def model_of(fold: Fold, session: Session) -> EvaluatedModel:
    """The test set of a fold, answered rightly in three of four studies, with a run of its own."""
    run_id = session.start_run(name=f"fold {fold.number}", part="wrist", tags={}, parent=fold.parent)
    session.writer.finish(run_id)
    source = source_of(fold.options)
    test = code_names(source.split_of_all[0].test, source.name_key(session.cache / NAMES_FOLDER))
    right = np.arange(len(test)) % 4 > 0
    logits = (2.0 * test["label"] - 1) * np.where(right, 1, -1) + 0.01 * np.arange(len(test))
    return EvaluatedModel(recipe="cnn", title="CNN", run_id=run_id, test=test.assign(logit=logits))


def test_the_run_above_the_folds_has_the_figures_over_all_of_them(
    store: Store, table: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TrainConfig(data=str(table["data"]), root=str(table["root"]), recipe="cnn", test_folds=(0, 3))
    with open_session("train", Environment(tracking_uri=store.uri, cache=tmp_path / "cache")) as session:
        run_over_folds(Folds(options=options), session, lambda fold: [model_of(fold, session)], name="3 folds")
    (parent,) = (run for run in all_runs(store) if run.name == "3 folds")
    check_figures(store, parent, tmp_path, capsys.readouterr().out)
    assert (parent.status, parent.tags["muralab.protocol"]) == ("FINISHED", "test_folds=3")
    assert undocumented(store, parent.run_id) == []
    assert not list((tmp_path / "cache").rglob("folds.json"))
    page = download_artifact(store, parent.run_id, "report.html", tmp_path).read_text(encoding="utf-8")
    for text in (
        "3 folds: 72 studies of 72 patients",
        "Every patient tested once",
        "each fold&#39;s own",
        "Suspicious labels",
    ):
        assert text in page
    labels = pd.read_csv(tmp_path / "cache" / "labels" / f"{parent.run_id}.csv")
    assert len(labels) == labels["study"].nunique() == 72
    assert set(labels["set"]) == {f"test of fold {number}" for number in (1, 2, 3)}
    assert labels["patient"].str.startswith("patient").all()


def test_a_class_that_a_later_fold_lacks_is_found_first(
    muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path
) -> None:
    rows = without(rows_of(easy_tree), "split")
    few = [row for row in rows if not row["label"] or str(row["patient"]) < "patient00004"]
    outcome = muralab("train", data=write_csv(tmp_path / "few.csv", few), root=easy_tree, **QUICK)
    assert outcome.code == 2
    assert "split has no abnormal (1) image" in outcome.complaint
    assert "fewer test_folds" in outcome.complaint
    assert all_runs(store) == []


@pytest.fixture
def path_of_ray(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path on which Ray's process finds the recipes of these tests."""
    monkeypatch.setenv("PYTHONPATH", f"{lab}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.long
@pytest.mark.usefixtures("path_of_ray")
def test_a_search_over_folds(muralab: Muralab, store: Store, table: dict[str, object]) -> None:
    values = {"recipes": SMALL, "epochs": "1+1", "trials": 2, "test_folds": 2}
    outcome = muralab("tune", **table, **values)
    assert outcome.code == 0, outcome.err
    parent, folds = parent_and_folds(store)
    assert [run.name for run in folds] == [f"tune wrist · {SMALL} × 2 trials · fold {n}" for n in (1, 2)]
    assert "Not registered: folds measure recipes" in outcome.out
    assert "2 folds: 72 studies of 72 patients" in outcome.out
    assert 0 <= parent.metrics["folds_study_auroc"] <= 1


@pytest.mark.long
@pytest.mark.usefixtures("path_of_ray")
def test_recipes_compared_over_folds(muralab: Muralab, store: Store, table: dict[str, object], tmp_path: Path) -> None:
    values = {"recipes": f"{SMALL},cnn", "epochs": "1+1", "image_size": 36, "seeds": 1, "test_folds": 2}
    outcome = muralab("compare", **table, **values)
    assert outcome.code == 0, outcome.err
    assert "2 recipes x 1 seed on each of 2 folds, " in outcome.out
    (parent,) = (run for run in all_runs(store) if run.name.startswith("compare") and "fold" not in run.name)
    folds = read_children(store, parent.run_id, predictions=True)
    assert [run.name for run in folds] == [f"{parent.name} · fold {n}" for n in (1, 2)]
    sentence = parent.tags["muralab.comparison"]
    assert sentence.startswith("On 72 test studies of 72 patients (wrist, radiographs), over 1 seed of 2 folds (each ")
    assert sentence in outcome.out
    assert parent.tags["muralab.protocol"] == "test_folds=2"
    page = download_artifact(store, parent.run_id, "report.html", tmp_path).read_text(encoding="utf-8")
    assert "test of 2 folds" in page
    results = pd.read_csv(download_artifact(store, parent.run_id, "results.csv", tmp_path))
    assert results["test_studies"].tolist() == [72, 72]


@pytest.fixture
def on_machine(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the folds of `tune` on one of two machines, which share a storage."""
    monkeypatch.setattr(sweep_owner, "SETTLE_S", 0.1)
    (tmp_path / "storage").mkdir()

    def run(name: str, config: TuneConfig, run_fold: Callable[[Fold, Session], Any]) -> None:
        with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path / name)) as session:
            folds = find_folds(config, session, TuneConfig)
            assert folds is not None
            run_over_folds(folds, session, lambda fold: run_fold(fold, session), name="3 folds")

    return run


def stop(fold: Fold, session: Session) -> Any:
    """A fold that is interrupted when its plan is in the storage."""
    tags = {Tag.PROTOCOL: str(fold.options.test_set)}
    run_id = session.start_run(name=f"fold {fold.number}", part="wrist", tags=tags, parent=fold.parent)
    Storage(fold.options.storage).write(f"sweeps/{run_id}/plan.json", b"{}")
    raise KeyboardInterrupt


def test_a_typing_error_in_the_storage_of_folds_is_found_before_anything_is_written(
    store: Store, table: dict[str, object], tmp_path: Path, on_machine: Callable[..., None]
) -> None:
    given = {key: str(value) for key, value in table.items()}
    config = TuneConfig(**given, recipes=("cnn",), test_folds=(0, 3), storage=str(tmp_path / "typo"))  # type: ignore[arg-type]
    with pytest.raises(StorageError, match=r"there is no folder .*typo"):
        on_machine("a", config, stop)
    assert not (tmp_path / "typo").exists()
    assert all_runs(store) == []


def test_folds_are_resumed_on_another_machine_and_not_a_second_time(
    store: Store, table: dict[str, object], tmp_path: Path, on_machine: Callable[..., None]
) -> None:
    shared, other = str(tmp_path / "storage"), str(tmp_path / "other")
    (tmp_path / "other").mkdir()
    given = {key: str(value) for key, value in table.items()}
    with pytest.raises(KeyboardInterrupt):
        on_machine("a", TuneConfig(**given, recipes=("cnn",), test_folds=(0, 3), storage=shared), stop)  # type: ignore[arg-type]
    parent, (first,) = parent_and_folds(store)
    resumed: list[str | None] = []

    def interrupt(fold: Fold, session: Session) -> None:
        raise KeyboardInterrupt

    def finish(fold: Fold, session: Session) -> list[EvaluatedModel]:
        assert fold.options.storage == shared
        resumed.append(fold.options.resume)
        return [model_of(fold, session)]

    with pytest.raises(KeyboardInterrupt):
        on_machine("a", TuneConfig(resume=parent.run_id, storage=other), interrupt)
    options = json.loads(Storage(other).read(f"sweeps/{parent.run_id}/folds.json"))
    assert options["storage"] == other
    assert [one.storage for one in find_interrupted(tmp_path / "a")] == [other]
    on_machine("b", TuneConfig(resume=parent.run_id, storage=shared), finish)
    assert resumed == [first.run_id, None, None]
    assert Storage(shared).names(f"sweeps/{parent.run_id}") == []
    with pytest.raises(StoreError, match="this sweep has ended, on another machine"):
        on_machine("a", TuneConfig(resume=parent.run_id, storage=shared), finish)


def test_a_dry_run_of_interrupted_folds_is_one(
    store: Store, table: dict[str, object], tmp_path: Path, on_machine: Callable[..., None]
) -> None:
    given = {key: str(value) for key, value in table.items()} | {"storage": str(tmp_path / "storage")}
    config = TuneConfig(**given, recipes=("cnn",), test_folds=(0, 3))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        on_machine("a", config, stop)
    parent, _ = parent_and_folds(store)
    with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path / "a")) as session:
        for is_dry in (True, False):
            folds = find_folds(TuneConfig(resume=parent.run_id, dry_run=is_dry), session, TuneConfig)
            assert folds is not None
            assert folds.options_of(1).dry_run is is_dry
