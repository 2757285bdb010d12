"""`train ensemble=3`: the networks, the model that averages them, and what evaluates and serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.commands.ensemble import kept_phase
from muralab.results.trained_model import load_trained_model
from muralab.tracking import RunRecord, Store, read_children, read_run
from tests.cli.conftest import SMALL, Muralab, all_runs, refused
from tests.fixtures.documented import undocumented

QUICK = {"recipe": SMALL, "epochs": "1+2", "cpus_per_trial": 1, "ensemble": 3}


@pytest.mark.slow
def test_an_ensemble_is_trained_evaluated_and_promoted(muralab: Muralab, store: Store, easy_tree: Path) -> None:
    trained = muralab("train", data=easy_tree, **QUICK)
    assert trained.code == 0, trained.err
    parent = next(run for run in all_runs(store) if run.tags.get("muralab.ensemble") == "3")
    members = read_children(store, parent.run_id, predictions=True)
    parent = read_run(store, parent.run_id)
    assert [run.tags["muralab.ensemble"] for run in members] == ["1/3", "2/3", "3/3"]
    check_split(members, parent)
    check_predictions(members, parent, store)
    assert "Ensemble of 3 networks" in trained.out
    assert [what for run in (parent, *members) for what in undocumented(store, run.run_id)] == []

    evaluated = muralab("evaluate", model=parent.run_id)
    assert evaluated.code == 0, evaluated.err
    again = next(run for run in all_runs(store) if run.kind == "evaluate")
    assert again.metrics["test_study_auroc"] == pytest.approx(parent.metrics["test_study_auroc"], abs=1e-9)

    promoted = muralab("promote", run=parent.run_id)
    assert promoted.code == 0, promoted.err
    assert "version 1: accepted as champion" in promoted.out


def check_split(members: list[RunRecord], parent: RunRecord) -> None:
    """Each patient that is not tested on was validated on once; all networks were tested on the same images."""
    validated = [image for run in members for image in run.predictions["validation"]["image"]]
    assert len(validated) == len(set(validated))
    assert sorted(validated) == sorted(parent.predictions["validation"]["image"])
    patients = [set(run.predictions["validation"]["patient"]) for run in members]
    assert not set.intersection(*patients)
    assert len({tuple(sorted(run.predictions["test"]["image"])) for run in [*members, parent]}) == 1


def check_predictions(members: list[RunRecord], parent: RunRecord, store: Store) -> None:
    """The ensemble answers with the mean of the networks' logits, and so does the network that its run keeps."""
    tables = [run.predictions["test"].sort_values("image") for run in [*members, parent]]
    logits = np.stack([table["logit"].to_numpy() for table in tables])
    np.testing.assert_allclose(logits[-1], logits[:-1].mean(axis=0), rtol=1e-6)
    aurocs = [run.metrics["test_study_auroc"] for run in members]
    assert parent.metrics["members_mean_study_auroc"] == pytest.approx(np.mean(aurocs))
    assert len(load_trained_model(store, parent).network.backbone) == 3


@pytest.mark.parametrize(
    ("phases", "expected"),
    [(["upper", "upper"], "upper"), (["full", "full"], "full"), (["upper", "full"], "mixed"), ([None, "full"], "full")],
)
def test_the_phase_of_an_ensemble_is_that_of_all_its_networks(phases: list[str | None], expected: str) -> None:
    def network(phase: str | None) -> RunRecord:
        tags = {} if phase is None else {"muralab.kept_phase": phase}
        return RunRecord(run_id="1", name="a network", status="FINISHED", experiment_id="1", tags=tags)

    assert kept_phase([network(phase) for phase in phases]) == expected


@pytest.mark.slow
def test_an_interrupted_ensemble_goes_on_with_the_network_that_is_missing(
    muralab: Muralab,
    store: Store,
    easy_tree: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from muralab.commands import train

    train_once, calls = train.train_once, []

    def interrupted(*arguments: object, **values: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_once(*arguments, **values)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_once", interrupted)
        assert muralab("train", data=easy_tree, **QUICK).code == 130
    parent = next(run for run in all_runs(store) if run.kind == "train" and run.tags.get("muralab.ensemble") is None)
    resumed = muralab("train", resume=parent.run_id)
    assert resumed.code == 0, resumed.err
    assert pd.Series([run.tags["muralab.ensemble"] for run in all_runs(store)]).tolist().count("3") == 1
    assert len(read_children(store, parent.run_id)) == 3


def test_an_ensemble_is_not_trained_over_folds_of_the_test_set(muralab: Muralab, store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image,label\n", encoding="utf-8")
    outcome = refused(muralab, store, "train", ensemble=5, test_folds=5, data=tmp_path / "rows.csv")
    assert "ensemble=5 and test_folds=5: give one of the two" in outcome.err
