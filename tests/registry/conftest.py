"""Made-up test predictions, and trained runs of a tiny recipe in a local store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.data.mura import read_index
from muralab.evaluation.calibration import fit_calibration
from muralab.recipe import override, resolved_values
from muralab.recipe_loader import load_recipe
from muralab.tracking import RunWriter, open_store
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
    """Two views of a study a patient; the noise is the same for every skill of one seed, so that pairs are close."""
    noise = np.random.default_rng(seed).normal(size=(n_patients, 2))
    rows = []
    for patient in range(n_patients):
        study = f"valid/XR_{part.upper()}/patient{first + patient:05d}/study1"
        for view in range(2):
            logit = skill * (2 * (patient % 2) - 1) + noise[patient, view]
            rows.append((f"{study}/image{view + 1}.png", study, study.split("/")[2], part, patient % 2, logit))
    return pd.DataFrame(rows, columns=["image", "study", "patient", "part", "label", "logit"])


@pytest.fixture(scope="session")
def make_test():
    """A function that makes a table of test predictions of a given skill."""
    return build_test


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[..., Path]) -> Path:
    """A tree of one part with 40 test patients."""
    return write_tree(tmp_path_factory.mktemp("tree"), parts=("wrist",), n_train=20, n_valid=40)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    """A local store of the module's own."""
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


def guess(table: pd.DataFrame, skill: float, seed: int) -> pd.DataFrame:
    """Predictions of the rows of an index."""
    noise = np.random.default_rng(seed).normal(size=len(table))
    columns = ["image", "study", "patient", "part", "label"]
    return table[columns].assign(logit=skill * (2 * table["label"].to_numpy() - 1) + noise)


@pytest.fixture(scope="module")
def train_run(store, tree: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function that logs a trained run of the tiny `cnn` with predictions of a given skill; returns its id."""
    index = read_index(tree, "wrist")

    def train(skill: float, *, tested: bool = True, n_test: int | None = None, digest: str = "d", **tags: str) -> str:
        recipe = override(load_recipe("cnn"), TINY)
        validation, test = (index[index["split"] == split] for split in ("train", "valid"))
        patients = sorted(test["patient"].unique())[:n_test]
        test = test[test["patient"].isin(patients)]
        weights = tmp_path_factory.mktemp("weights") / "weights.safetensors"
        write_tensors(weights, recipe.build(image_size=32, **recipe.model).state_dict())
        calibration = fit_calibration(guess(validation, skill, 1))
        with RunWriter(store) as writer:
            run = writer.start_run(experiment="lab", kind="trial", name="cnn-00", tags={**FACTS, **tags})
            writer.log_resolved(run, {**resolved_values(recipe), "recipe": "cnn"})
            writer.log_file(run, weights, "weights")
            writer.log_text(run, json.dumps(calibration.to_dict()), "calibration.json")
            writer.log_predictions(run, "validation", guess(validation, skill, 1))
            for context in ("validation", "test"):
                writer.log_dataset(run, name=context, digest=digest, source=str(tree), context=context, profile={})
            if tested:
                writer.log_predictions(run, "test", guess(test, skill, 2))
            writer.finish(run)
            return writer.run_id(run)

    return train
