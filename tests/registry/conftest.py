"""Simulated test predictions, and trained runs of a tiny recipe in a local store."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.data.mura import read_index
from muralab.evaluation.calibration import Calibration, fit_calibration
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.recipe import override, resolved_values
from muralab.recipe_loader import load_recipe
from muralab.tracking import SPLIT_TABLE, RunWriter, Store, open_store
from muralab.training.checkpoint import write_tensors

TINY = {"image_size": 32, "model.filters": 2, "model.units": 2}
FACTS = {
    "muralab.part": "wrist",
    "muralab.recipe": "cnn",
    "muralab.synthetic": "false",
    "muralab.seed": "0",
    "muralab.split_fingerprint": "abc",
    "muralab.protocol": "valid-as-test",
    "muralab.objective": "val_study_auroc",
    "muralab.weights": "none needed",
}


def build_test(skill: float, *, seed: int = 0, n_patients: int = 80, part: str = "wrist", first: int = 0):
    """One study of two views per patient; one seed gives the same noise at every skill, so that pairs are close."""
    noise = np.random.default_rng(seed).normal(size=(n_patients, 2))
    rows = []
    for patient in range(n_patients):
        study = f"valid/XR_{part.upper()}/patient{first + patient:05d}/study1"
        for view in range(2):
            logit = skill * (2 * (patient % 2) - 1) + noise[patient, view]
            rows.append((f"{study}/image{view + 1}.png", study, study.split("/")[2], part, patient % 2, logit))
    return pd.DataFrame(rows, columns=["image", "study", "patient", "part", "label", "logit"])


def build_model(test: pd.DataFrame, title: str = "version 1", **calibration: float) -> EvaluatedModel:
    """An evaluated model with given test predictions."""
    return EvaluatedModel(recipe="cnn", title=title, run_id="run", test=test, calibration=Calibration(**calibration))


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[..., Path]) -> Path:
    """A tree of one body part with 40 test patients."""
    return write_tree(tmp_path_factory.mktemp("tree"), parts=("wrist",), n_train=20, n_valid=40)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Store:
    """A local store."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    shutil.copy(empty_database, path)
    return open_store(f"sqlite:///{path}")


def simulate_predictions(table: pd.DataFrame, skill: float, seed: int) -> pd.DataFrame:
    """Predictions for the rows of an index."""
    noise = np.random.default_rng(seed).normal(size=len(table))
    columns = ["image", "study", "patient", "part", "label"]
    return table[columns].assign(logit=skill * (2 * table["label"].to_numpy() - 1) + noise)


def log_run(
    store: Store,
    tree: Path,
    skill: float,
    *,
    tested: bool = True,
    n_test: int | None = None,
    digest: str = "d",
    split: pd.DataFrame | None = None,
    experiment: str = "lab",
    **tags: str,
) -> str:
    """Log a run of the tiny `cnn` with simulated predictions of a given skill, and its split; returns its id."""
    index = read_index(tree, "wrist")
    recipe = override(load_recipe("cnn"), TINY)
    validation, test = (index[index["split"] == split] for split in ("train", "valid"))
    test = test[test["patient"].isin(sorted(test["patient"].unique())[:n_test])]
    predictions = simulate_predictions(validation, skill, 1)
    with tempfile.TemporaryDirectory() as folder, RunWriter(store) as writer:
        weights = Path(folder) / "weights.safetensors"
        write_tensors(weights, recipe.build(image_size=32, **recipe.model).state_dict())
        run = writer.start_run(experiment=experiment, kind="trial", name="cnn-00", tags={**FACTS, **tags})
        writer.log_resolved(run, {**resolved_values(recipe), "recipe": "cnn"})
        writer.log_file(run, weights, "weights")
        writer.log_text(run, json.dumps(fit_calibration(predictions).to_dict()), "calibration.json")
        writer.log_predictions(run, "validation", predictions)
        for context in ("validation", "test"):
            writer.log_dataset(run, name=context, digest=digest, source=str(tree), context=context, profile={})
        if split is not None:
            writer.log_table(run, split, SPLIT_TABLE)
        if tested:
            writer.log_predictions(run, "test", simulate_predictions(test, skill, 2))
        writer.finish(run)
        return writer.run_id(run)


@pytest.fixture(scope="session")
def train_run(store: Store, tree: Path) -> Callable[..., str]:
    """A function that logs a run of a given skill on the tree's test patients, and returns its id."""
    return functools.partial(log_run, store, tree)
