"""Simulated models for a report: two views of one study per patient, with as much skill as a test needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel, TrainingRecord
from muralab.report.context import Context, SearchTrial

BuildModel = Callable[..., EvaluatedModel]
BuildPredictions = Callable[..., pd.DataFrame]


def _build_predictions(skill: float, *, seed: int = 0, n_patients: int = 40, one_class: bool = False) -> pd.DataFrame:
    noise = np.random.default_rng(seed).normal(size=(n_patients, 2))
    labels = [0 if one_class else patient % 2 for patient in range(n_patients)]
    studies = [f"valid/XR_WRIST/patient{p:05d}/study1" for p in range(n_patients)]
    rows = [
        (f"{study}/image{view + 1}.png", study, study.split("/")[2], "wrist", y, skill * (2 * y - 1) + n[view])
        for study, y, n in zip(studies, labels, noise, strict=True)
        for view in range(2)
    ]
    return pd.DataFrame(rows, columns=["image", "study", "patient", "part", "label", "logit"])


def _build_training(**changes: object) -> TrainingRecord:
    names = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc", "lr"]
    history = pd.DataFrame({name: np.linspace(0.5, 0.7, 4) for name in names}, index=range(1, 5))
    summary = {f"{p}_{s}_{m}": 0.5 for p in ("upper", "full") for s in ("train", "val") for m in ("loss", "accuracy")}
    values = {
        "history": history.assign(phase=[1, 1, 2, 2]),
        "summary": {**summary, "test_loss": 0.61, "test_accuracy": 0.72},
    }
    return TrainingRecord(**{**values, **changes})  # type: ignore[arg-type]


def _build_model(
    name: str = "good", *, skill: float = 2.0, training: dict[str, object] | None = None, **changes: object
) -> EvaluatedModel:
    values: dict[str, object] = {
        "recipe": name,
        "title": name.title(),
        "run_id": f"run-{name}",
        "validation": _build_predictions(skill, seed=1),
        "test": _build_predictions(skill, seed=2),
        "calibration": Calibration(threshold=0.45, study_temperature=1.5),
        "objective": skill / 10,
        "training": _build_training(**(training or {})),
    }
    return EvaluatedModel(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def build_predictions() -> BuildPredictions:
    """A function that simulates a table of predictions; every second patient is abnormal."""
    return _build_predictions


@pytest.fixture(scope="session")
def build_model() -> BuildModel:
    """A function that builds an evaluated model; `training` changes fields of its training record."""
    return _build_model


@pytest.fixture(scope="session")
def unscored() -> dict[str, object]:
    """Changes that leave a model without a validation score."""
    return {"objective": float("nan"), "training": {"history": pd.DataFrame(), "summary": {}}}


@pytest.fixture(scope="session")
def context() -> Context:
    counts = pd.DataFrame({"set": ["train", "test"], "studies": [90, 40], "patients": [80, 40], "images": [180, 80]})
    return Context(
        title="A sweep",
        part="wrist",
        data="demo",
        synthetic=True,
        protocol="valid-as-test",
        seed=0,
        image_size=96,
        weights="random",
        split_counts=counts.assign(abnormal=[40, 20]),
        fingerprint="abc",
        unreadable={"train/broken.png": "truncated"},
        commit="1234567",
        created=datetime(2026, 1, 2, 3, 4),
        machine="2 cores",
    )


@pytest.fixture(scope="session")
def trials() -> list[SearchTrial]:
    """Two trials of one recipe that differ in their learning rate."""
    shared = {"recipe": "good", "run_id": "r", "status": "TERMINATED", "objective": 0.5}
    return [
        SearchTrial(name=f"good-{i}", epochs=i + 1, values={"full.lr": lr}, **shared)  # type: ignore[arg-type]
        for i, lr in enumerate((1e-4, 1e-3))
    ]
