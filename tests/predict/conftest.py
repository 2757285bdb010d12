"""A folder of images, and an engine without a model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from muralab.commands import predict as run_module
from muralab.config.commands import PredictConfig
from muralab.errors import DataError
from tests.serving.conftest import onnx_file  # noqa: F401


def write_picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    return path


class FakeEngine:
    """Answers every row with fixed numbers, or with an error if it is not base64 text of a PNG or DICOM file."""

    name = "a fake"

    def __init__(self) -> None:
        self.requests: list[list[dict]] = []
        self.params: dict = {}
        self.failing: dict[int, Exception] = {}
        self.knows_prevalence = True

    def answer(self, rows: list[dict], params: dict) -> list[dict]:
        self.requests.append(rows)
        self.params = params
        if len(self.requests) in self.failing:
            raise self.failing[len(self.requests)]
        return [self._row(row) for row in rows]

    def _row(self, row: dict) -> dict:
        good = row["image"].startswith(("iVBOR", "AAAA"))  # PNG, or the preamble of DICOM
        answer = {"probability": 0.25, "study_probability": 0.5, "abnormal": True, "uncertain": False}
        fixed = {"threshold": 0.5, "model_version": "tiny/1", "warnings": ["single view"] if good else []}
        if self.knows_prevalence:
            fixed["prevalence"] = self.params.get("prevalence", 0.3)
        return fixed | ({**answer, "error": None} if good else {**dict.fromkeys(answer), "error": "not a picture"})


@pytest.fixture
def engine(monkeypatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(run_module, "_build_engine", lambda *_: fake)
    return fake


@pytest.fixture
def ask(tmp_path):
    """A function that builds the options for the folder `pictures`."""

    def build(**changes: object) -> PredictConfig:
        fields = {"images": tmp_path / "pictures", "out": tmp_path / "out.csv"}
        return PredictConfig(**fields | changes)

    return build


@pytest.fixture
def refusal() -> DataError:
    return DataError("Too large a request.")


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory) -> str:
    """A new store for the session; creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/m.db"


@pytest.fixture(autouse=True, scope="module")
def _no_store_is_left_behind():
    """Loading a model sets MLflow's store for the whole process, and so for tests in other files."""
    yield
    import mlflow

    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)
