"""Runs that commit 2303a03 logged are read with the same content."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from muralab.tracking import (
    RunRecord,
    Store,
    close_dead_runs,
    download_artifact,
    find_evaluations,
    fingerprint_test_set,
    read_children,
    read_datasets,
)
from muralab.tracking.tags import resolved_values_of
from tests.fixtures.old_store import unpack
from tests.fixtures.runs import find_run, find_runs

PLATFORM = Path(__file__).parents[2] / "platform"
TRIAL = "tiny_lab.small_net-00"
ASK_CHAMPION = """
import base64, pathlib, sys, pandas
from muralab.registry.load import load_registered
model, _ = load_registered("models:/mura-wrist@champion", sys.argv[1])
picture = base64.b64encode(pathlib.Path(sys.argv[2]).read_bytes()).decode()
answer = model.predict(pandas.DataFrame({"image": [picture], "study": ["s"]}))
print(answer["probability"][0], answer["threshold"][0])
"""


@pytest.fixture(scope="module")
def old_store(tmp_path_factory: pytest.TempPathFactory, easy_tree: Path) -> Store:
    return unpack(tmp_path_factory.mktemp("old"), easy_tree)


@pytest.fixture(scope="module")
def sweep(old_store: Store) -> RunRecord:
    return find_run(old_store, "tune-wrist")


def test_every_kind_of_run_is_recognised(old_store: Store) -> None:
    kinds = [run.kind for run in find_runs(old_store)]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "tune": 1, "trial": 6, "train": 1, "evaluate": 1, "promote": 1, "compare": 1
    }  # fmt: skip


def test_a_sweep_names_its_winner_and_its_model(sweep: RunRecord) -> None:
    tags = ("muralab.winner", "muralab.registered", "muralab.alias", "muralab.protocol", "muralab.seed")
    assert (sweep.status, sweep.part) == ("FINISHED", "wrist")
    assert [sweep.tags[tag] for tag in tags] == [TRIAL, "mura-wrist/1", "champion", "valid-as-test", "0"]


def test_trials_have_their_histories(old_store: Store, sweep: RunRecord) -> None:
    trials = {run.name: run for run in read_children(old_store, sweep.run_id)}
    assert {name: run.recipe for name, run in trials.items()} == {TRIAL: "tiny_lab.small_net", "cnn-00": "cnn"}
    history = trials["cnn-00"].history
    assert history.loc[[1, 2], "phase"].to_list() == [1.0, 2.0]
    assert history.loc[0, "test_study_auroc"] == trials["cnn-00"].metrics["test_study_auroc"] == 5 / 144


def test_resolved_values_are_read_without_their_prefix(old_store: Store) -> None:
    values = resolved_values_of(find_run(old_store, f"train-{TRIAL[:-3]}").params)
    assert (values["image_size"], values["full.lr"], values["model.filters"]) == ("36", "0.0001", "8")


@pytest.mark.parametrize("name", [TRIAL, "cnn-00", f"train-{TRIAL[:-3]}", "evaluate-cnn-00", "cnn-seed1"])
def test_predictions_belong_to_the_test_set_that_the_tags_name(old_store: Store, name: str) -> None:
    run = find_run(old_store, name)
    assert len(run.predictions["test"]) == 36
    assert fingerprint_test_set(run.predictions["test"]) == run.tags["muralab.test_fingerprint"]


def test_evaluations_on_the_test_set_are_counted(old_store: Store, sweep: RunRecord) -> None:
    fingerprint = find_run(old_store, TRIAL).tags["muralab.test_fingerprint"]
    assert len(find_evaluations(old_store, fingerprint).run_ids) == 8


def test_data_sets_name_the_tree(old_store: Store, easy_tree: Path) -> None:
    data = read_datasets(old_store, find_run(old_store, TRIAL).run_id)
    assert set(data) == {"training", "validation", "test"}
    assert {one.source for one in data.values()} == {str(easy_tree)}
    assert data["test"].profile == {"images": 36, "studies": 24, "patients": 24, "abnormal": 24}


def test_weights_are_downloaded(old_store: Store, tmp_path: Path) -> None:
    folder = download_artifact(old_store, find_run(old_store, TRIAL).run_id, "weights", tmp_path)
    assert [path.name for path in folder.iterdir()] == ["weights.safetensors"]


def test_finished_runs_are_left_alone(old_store: Store) -> None:
    assert close_dead_runs(old_store) == []


def test_the_registered_model_has_its_aliases(old_store: Store) -> None:
    versions = {a: old_store.client.get_model_version_by_alias("mura-wrist", a) for a in ("champion", "challenger")}
    assert {alias: (found.version, found.tags["muralab.gate"]) for alias, found in versions.items()} == {
        "champion": (1, "accepted"), "challenger": (2, "refused")
    }  # fmt: skip


@pytest.mark.slow
def test_the_registered_model_answers_as_when_it_was_trained(old_store: Store, easy_tree: Path) -> None:
    image = find_run(old_store, TRIAL).predictions["test"].iloc[0]
    command = [sys.executable, "-c", ASK_CHAMPION, old_store.uri, str(easy_tree / image["image"])]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PLATFORM)}, capture_output=True, text=True)
    probability, threshold = map(float, done.stdout.split()[-2:])
    assert probability == pytest.approx(1 / (1 + np.exp(-image["logit"] / 0.16564005489347133)), abs=1e-4)
    assert threshold == pytest.approx(0.5647609981990211)
