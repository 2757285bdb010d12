"""`evaluate` from the command line: the model's own test set by default, and no other set called test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from muralab.tracking import RunRecord, Store
from muralab.tracking.stored_names import stored_tag
from tests.cli.conftest import SMALL, Muralab, all_runs, call, copy_store, refused, use_store
from tests.conftest import write_easy_tree
from tests.fixtures.documented import undocumented

COPIED = ("train/XR_WRIST/patient00001", "valid/XR_WRIST/patient00051")
"""Patients of the easy tree's two folders, both abnormal."""
QUICK = {"recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1}


def evaluations(store: Store) -> list[RunRecord]:
    return [run for run in all_runs(store) if run.kind == "evaluate"]


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, lab: Path, easy_tree: Path) -> Path:
    """The store and cache of one training, under the study's protocol and with another seed than the default."""
    folder = tmp_path_factory.mktemp("trained")
    values = {"data": easy_tree, "protocol": "valid-as-validation", "seed": 3, **QUICK}
    with pytest.MonkeyPatch.context() as patch:
        use_store(folder, empty_database, patch)
        assert call("train", values, patch) == 0
    return folder


@pytest.fixture
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if "trained" in request.fixturenames:
        copy_store(request.getfixturevalue("trained_folder"), tmp_path)


@pytest.fixture
def trained(store: Store) -> RunRecord:
    """The run of `trained_folder`, in this test's own copy of its store."""
    (run,) = all_runs(store)
    return run


def test_the_default_is_the_runs_own_test_set(trained: RunRecord, muralab: Muralab, store: Store) -> None:
    outcome = muralab("evaluate", model=trained.run_id)
    assert outcome.code == 0, outcome
    assert "Leakage" not in outcome.out
    (found,) = evaluations(store)
    same = ("muralab.protocol", "muralab.seed", "muralab.split_fingerprint", "muralab.test_fingerprint", "muralab.part")
    assert [found.tags[key] for key in same] == [trained.tags[key] for key in same]
    assert found.tags["muralab.learnt_images"] == "0"
    assert undocumented(store, found.run_id) == []


@pytest.mark.parametrize(
    ("values", "word"),
    [({"protocol": "valid-as-test"}, "selected on"), ({"seed": 4}, "trained on"), ({"set": "all"}, "selected on")],
    ids=str,
)
def test_leaked_images_are_counted_and_refused_by_reports(
    trained: RunRecord, muralab: Muralab, store: Store, easy_tree: Path, values: dict[str, object], word: str
) -> None:
    outcome = muralab("evaluate", model=trained.run_id, data=easy_tree, **values)
    assert outcome.code == 0, outcome
    assert f"of patients that it was {word}" in outcome.out
    (found,) = evaluations(store)
    leaked = int(found.tags["muralab.learnt_images"])
    assert 0 < leaked <= len(found.predictions["test"])
    said = muralab("report", runs=found.run_id)
    assert said.code == 2
    assert f"the model has seen {leaked}" in said.complaint


def test_another_tree_has_no_known_leakage(trained: RunRecord, muralab: Muralab, store: Store, tree: Path) -> None:
    assert muralab("evaluate", model=trained.run_id, data=tree, set="all").code == 0
    assert evaluations(store)[0].tags["muralab.learnt_images"] == "0"


def test_another_prevalence_shifts_probabilities_and_keeps_the_calls(
    trained: RunRecord, muralab: Muralab, store: Store
) -> None:
    outcomes = [muralab("evaluate", model=trained.run_id, **more) for more in ({}, {"prevalence": 0.05})]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    before, after = sorted(evaluations(store), key=lambda run: run.started_s)
    assert after.metrics["test_study_kappa"] == before.metrics["test_study_kappa"]
    assert after.metrics["test_study_brier"] != before.metrics["test_study_brier"]
    assert after.metrics["threshold"] < before.metrics["threshold"]
    assert "shifted to a share of 5.0% abnormal studies" in outcomes[1].out


def test_copies_in_another_tree_are_found_by_their_content(
    trained: RunRecord, muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy" / "MURA-v1.1"
    for image in easy_tree.rglob("image1.png"):
        split, part, patient, study = image.relative_to(easy_tree).parts[:-1]
        target = copied / split / part / f"renamed-{patient}" / study
        target.mkdir(parents=True)
        shutil.copy(image, target / "image7.png")
    assert muralab("evaluate", model=trained.run_id, data=copied, protocol="valid-as-test").code == 0
    (found,) = evaluations(store)
    assert int(found.tags["muralab.learnt_images"]) == len(found.predictions["test"]) == 24


def test_a_run_of_unknown_leakage_says_so(
    trained: RunRecord, muralab: Muralab, store: Store, easy_tree: Path, tree: Path, tmp_path: Path
) -> None:
    for path in tmp_path.rglob("split.csv"):  # as older versions logged no split
        path.unlink()
    store.client.set_tag(trained.run_id, stored_tag("muralab.split_fingerprint"), "of another tree")
    outcome = muralab("evaluate", model=trained.run_id, data=tree)
    assert "Leakage: not known, because the trained run logged no split" in " ".join(outcome.out.split())
    (found,) = evaluations(store)
    assert found.tags["muralab.learnt_images"] == "unknown"
    said = muralab("report", runs=found.run_id)
    assert said.code == 0
    assert "it is not known whether the model has seen its test images" in " ".join(said.out.split())


def test_copies_are_left_out_of_the_test_set_as_in_training(muralab: Muralab, store: Store, tmp_path: Path) -> None:
    tree = write_easy_tree(tmp_path / "copies" / "MURA-v1.1")
    source, copy = (tree / f"{name}/study1_positive/image1.png" for name in COPIED)
    shutil.copyfile(source, copy)
    assert muralab("train", data=tree, duplicates="drop", **QUICK).code == 0
    (run,) = all_runs(store)
    assert (run.tags["muralab.duplicates"], run.predictions["test"]["patient"].nunique()) == ("drop", 23)
    assert "left out of the test set" in muralab("evaluate", model=run.run_id).out
    assert "duplicates=drop leaves these patients out" in muralab("evaluate", model=run.run_id, duplicates="keep").out
    sizes = {one.tags["muralab.duplicates"]: len(one.predictions["test"]) for one in evaluations(store)}
    assert sizes == {"drop": len(run.predictions["test"]), "keep": len(run.predictions["test"]) + 2}


def test_an_evaluation_on_the_test_set_is_counted_in_the_registered_model(
    trained: RunRecord, muralab: Muralab, store: Store
) -> None:
    store.client.create_registered_model("mura-wrist")
    for options in ({}, {"set": "validation"}, {}):
        assert muralab("evaluate", model=trained.run_id, **options).code == 0
    tags = store.client.get_registered_model("mura-wrist").tags
    fingerprint = trained.tags["muralab.test_fingerprint"]
    assert {key: value for key, value in tags.items() if "look_runs" not in key} == {
        f"muralab.test_looks.{fingerprint}": "3",
        f"muralab.test_look_patients.{fingerprint}": trained.tags["muralab.test_patients"],
    }


def test_an_evaluation_is_evaluated_again_through_its_trained_run(
    trained: RunRecord, muralab: Muralab, store: Store, easy_tree: Path
) -> None:
    assert muralab("evaluate", model=trained.run_id, data=easy_tree).code == 0
    assert muralab("evaluate", model=evaluations(store)[0].run_id, data=easy_tree).code == 0
    assert {run.tags["muralab.evaluates"] for run in evaluations(store)} == {trained.run_id}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "one"}, "seed=one: expected run (the trained run's), or a whole number from 0 to 4294967295"),
        ({"seed": -1}, "seed=-1: expected run"),
        ({"seed": 2**32}, "seed=4294967296: expected run"),
        ({"prevalence": 0}, "prevalence=0: expected validation, or a share above 0 and below 1 such as 0.1"),
        ({"prevalence": "rare"}, "prevalence=rare: expected validation, or a share"),
        ({"protocol": "valid"}, "protocol=valid is unknown. Did you mean 'valid-as-test' or 'valid-as-validation'?"),
    ],
    ids=str,
)
def test_an_impossible_split(
    muralab: Muralab, store: Store, tiny_tree: Path, values: dict[str, object], message: str
) -> None:
    assert message in refused(muralab, store, "evaluate", model="x", data=tiny_tree, **values).complaint
