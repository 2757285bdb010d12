"""`promote` from the command line: which model it means, what it prints, what it logs, what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts

from muralab.errors import StoreError
from muralab.registry import fast_engine
from muralab.results.trained_model import load_trained_model
from muralab.tracking import read_run, start_run
from muralab.tracking.tags import Tag
from tests.cli.conftest import SMALL
from tests.conftest import write_easy_tree
from tests.fixtures.documented import undocumented
from tests.fixtures.runs import find_runs
from tests.registry.conftest import log_run


@pytest.fixture
def images(tmp_path: Path, write_tree: Callable[..., Path]) -> Path:
    """A tree with 40 test patients."""
    return write_tree(tmp_path / "images", parts=("wrist",), n_train=20, n_valid=40)


@pytest.fixture
def add_version(store, images):
    """A function that logs a run of a given skill and makes it a version of mura-wrist: (run id, version)."""
    store.client.create_registered_model("mura-wrist")

    def add(skill: float, **options) -> tuple[str, str]:
        run = log_run(store, images, skill, **options)
        return run, str(store.client.create_model_version("mura-wrist", source="nowhere", run_id=run).version)

    return add


def test_the_decision_is_printed_and_logged(muralab, store, add_version):
    _, version = add_version(1.5)
    out = muralab("promote", part="wrist", version=version).out
    assert f"mura-wrist version {version}: accepted as champion" in out
    assert "models:/mura-wrist@champion" in out
    (run,) = (run for run in find_runs(store) if run.kind == "promote")
    assert run.tags["muralab.gate"] == "accepted"
    assert run.tags["muralab.registered"] == f"mura-wrist/{version}"
    assert undocumented(store, run.run_id) == []
    counted = {key for key in store.client.get_registered_model("mura-wrist").tags if "test_looks." in key}
    assert len(counted) == 1


def test_the_margin_is_taken_from_the_command_line(muralab, store, add_version):
    _, version = add_version(1.5)
    muralab("promote", part="wrist", version=version, margin="0.2")
    assert store.client.get_model_version("mura-wrist", version).tags["muralab.gate_margin"] == "0.2"


def test_a_dry_run_changes_nothing(muralab, store, add_version):
    _, version = add_version(1.5)
    assert "nothing was changed" in muralab("promote", part="wrist", version=version, dry_run="true").out
    assert store.client.get_model_version("mura-wrist", version).tags == {}
    assert "promote" not in {run.kind for run in find_runs(store)}


def test_an_evaluation_stands_for_its_trained_run(muralab, store, images, add_version):
    run, version = add_version(1.5)
    evaluation = log_run(store, images, 0.0, **{"muralab.evaluates": run})
    out = muralab("promote", part="wrist", run=evaluation).out
    assert run in out
    assert f"version {version}: accepted as champion" in out


def test_a_run_without_test_predictions_is_refused(muralab, store, images):
    run = log_run(store, images, 1.0, tested=False)
    assert f"The run {run} (trial, cnn-00) holds no test predictions" in muralab("promote", run=run).complaint


@pytest.mark.parametrize("values", [{}, {"run": "a", "version": "1"}])
def test_exactly_one_of_run_and_version_is_needed(muralab, values):
    outcome = muralab("promote", **values)
    assert outcome.code == 2
    assert "promote needs one of run=" in outcome.complaint


def test_an_impossible_part_is_refused(muralab):
    assert "part=wri'st: expected a body part" in muralab("promote", part="wri'st", version="1").complaint


def test_a_run_of_another_part_is_refused(muralab, store, images):
    run = log_run(store, images, 1.0)
    assert "is of part=wrist, not of part=hand" in muralab("promote", part="hand", run=run).complaint


def test_a_run_without_weights_is_refused(store):
    run = start_run(store, kind="trial", name="cnn-01")
    record = replace(read_run(store, run), params={"resolved.recipe": "cnn"}, recipe="cnn")
    with pytest.raises(StoreError, match=r"keeps no weights: in a sweep the best trial .*, in a comparison none"):
        load_trained_model(store, record)


@pytest.mark.slow
def test_a_run_is_registered_and_later_reevaluated_on_a_new_test_set(muralab, store, images, add_version):
    run = log_run(store, images, 2.0)
    out = " ".join(muralab("promote", part="wrist", run=run, engine="fast").out.split())
    assert "mura-wrist version 1: accepted as champion" in out
    version = store.client.get_model_version_by_alias("mura-wrist", "champion")
    assert version.run_id == run
    assert version.description.startswith("# custom CNN, wrist")
    assert "The fast engine is left out: " in out  # the run's predictions are simulated, not the network's
    assert version.tags[Tag.ENGINE] == "exact"
    assert store.client.get_registered_model("mura-wrist").description == version.description
    _, newer = add_version(2.0, n_test=30)
    out = muralab("promote", part="wrist", version=newer).out
    assert "against version 1 (re-evaluated): paired difference" in out


@pytest.mark.long
def test_a_champion_gets_the_fast_engine_if_it_is_as_good(muralab, store, tmp_path, monkeypatch):
    tree = write_easy_tree(tmp_path / "easy" / "MURA-v1.1", n_train=60, n_valid=40)
    quick = {"data": tree, "recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1}
    assert muralab("train", **quick).code == 0
    (run,) = find_runs(store)
    assert "version 1: accepted as champion" in muralab("promote", run=run.run_id).out
    with monkeypatch.context() as stricter:
        stricter.setattr(fast_engine, "PROBABILITY_TOLERANCE", -1.0)
        refused = muralab("promote", run=run.run_id, engine="fast")
    assert "The fast engine is left out: probabilities differ by 0.0" in " ".join(refused.complaint.split())
    assert len(store.client.search_model_versions("name='mura-wrist'")) == 1
    out = " ".join(muralab("promote", run=run.run_id, engine="fast").out.split())
    assert "The fast engine (8-bit integers) is as good as the exact one. On 40 test studies: AUROC" in out
    assert "It is the model of the champion, version 1, with another engine" in out
    champion = store.client.get_model_version_by_alias("mura-wrist", "champion")
    assert (str(champion.version), champion.tags[Tag.ENGINE]) == ("2", "fast")
    assert champion.tags[Tag.ENGINE_CHECK] in champion.description


def test_a_version_keeps_its_engine(muralab):
    assert "engine=fast: a version keeps the engine" in muralab("promote", version="1", engine="fast").complaint


@pytest.mark.slow
def test_no_model_is_promoted_for_having_trained_on_the_test_images(muralab, store, tmp_path):
    tree = write_easy_tree(tmp_path / "easy" / "MURA-v1.1", n_train=240, n_valid=20)
    quick = {"data": tree, "recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1, "protocol": "valid-as-validation"}
    for seed in (1, 0):
        assert muralab("train", seed=seed, **quick).code == 0
    older, newer = find_runs(store)
    assert "accepted as champion" in muralab("promote", run=newer.run_id).out
    bundle = Path(download_artifacts("models:/mura-wrist@champion", tracking_uri=store.uri))
    assert next(bundle.rglob("familiarity.npz")).stat().st_size > 0  # it warns about unlike images, as after a sweep
    out = " ".join(muralab("promote", run=older.run_id).out.split())
    test = newer.predictions["test"]
    assert "refused, stays challenger" in out
    n_trained = int(re.search(r"version 2 has seen (\d+): \1 of patients that it was trained on", out)[1])
    assert 0.6 * len(test) < n_trained <= len(test)
    assert "That is too few" in out
