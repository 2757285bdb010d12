"""Made-up models for a report: two views of one study a patient, with as much skill as a test needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.calibration import Calibration
from muralab.report import Context, Entry, Trial

MakeEntry = Callable[..., Entry]
MakePredictions = Callable[..., pd.DataFrame]


def build_predictions(skill: float, *, seed: int = 0, n_patients: int = 40, one_class: bool = False) -> pd.DataFrame:
    """Two views of one study a patient; every second patient abnormal."""
    noise = np.random.default_rng(seed).normal(size=(n_patients, 2))
    labels = [0 if one_class else patient % 2 for patient in range(n_patients)]
    studies = [f"valid/XR_WRIST/patient{p:05d}/study1" for p in range(n_patients)]
    rows = [
        (f"{study}/image{view + 1}.png", study, study.split("/")[2], "wrist", y, skill * (2 * y - 1) + n[view])
        for study, y, n in zip(studies, labels, noise, strict=True)
        for view in range(2)
    ]
    return pd.DataFrame(rows, columns=["image", "study", "patient", "part", "label", "logit"])


def build_history() -> pd.DataFrame:
    names = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc", "lr"]
    frame = pd.DataFrame({name: np.linspace(0.5, 0.7, 4) for name in names}, index=range(1, 5))
    return frame.assign(phase=[1, 1, 2, 2])


def build_entry(name: str = "good", *, skill: float = 2.0, **changes: object) -> Entry:
    summary = {f"{p}_{s}_{m}": 0.5 for p in ("upper", "full") for s in ("train", "val") for m in ("loss", "accuracy")}
    values: dict[str, object] = {
        "name": name,
        "title": name.title(),
        "run_id": f"run-{name}",
        "history": build_history(),
        "summary": {**summary, "test_loss": 0.61, "test_accuracy": 0.72},
        "validation": build_predictions(skill, seed=1),
        "test": build_predictions(skill, seed=2),
        "calibration": Calibration(threshold=0.45, study_temperature=1.5),
        "objective": skill / 10,
    }
    return Entry(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def predictions() -> MakePredictions:
    """A function that makes a table of predictions."""
    return build_predictions


@pytest.fixture(scope="session")
def entry() -> MakeEntry:
    """A function that makes an evaluated model."""
    return build_entry


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
def trials() -> list[Trial]:
    """Two trials of one recipe that differ in their learning rate."""
    return [
        Trial(
            recipe="good",
            name=f"good-{i}",
            run_id="r",
            status="TERMINATED",
            epochs=i + 1,
            objective=0.5,
            values={"full.lr": lr},
        )
        for i, lr in enumerate((1e-4, 1e-3))
    ]
