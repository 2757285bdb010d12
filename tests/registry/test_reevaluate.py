"""A registered model on another test set: one logit per image, the model's own calibration, clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muralab.data.files import read_square
from muralab.data.mura import read_index
from muralab.errors import DataError, StoreError
from muralab.evaluation.calibration import Calibration
from muralab.registry import reevaluate
from muralab.registry.reevaluate import evaluate_registered
from muralab.serving.config import ServingConfig
from muralab.tracking import Store
from tests.serving.conftest import SIZE, write_onnx

FITTED = {
    "image_temperature": 1.3,
    "image_intercept": -0.6,
    "study_temperature": 1.7,
    "study_intercept": -0.8,
    "method": "slope and intercept",
    "prevalence": 0.3,
    "n_studies": 120,
    "threshold": 0.31,
    "rule": "youden",
    "uncertain_low": 0.2,
    "uncertain_high": 0.4,
}
STORE = Store(uri="")  # not read: the bundle is local


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A function of the stored configuration's fields that replaces the download of a registered version."""

    def install(**fields: Any) -> Path:
        write_onnx(tmp_path / "model.onnx")
        config = ServingConfig(image_size=SIZE, **fields)
        monkeypatch.setattr(reevaluate, "_download", lambda *_: (tmp_path / "model.onnx", config))
        return tmp_path / "model.onnx"

    return install


def test_each_image_gets_its_own_logit_in_any_order_of_rows(bundle, tree, tmp_path):
    bundle()
    table = read_index(tree, "wrist").sample(frac=1, random_state=0, ignore_index=True)
    assert len(table) > 2 * reevaluate.BATCH_SIZE
    predictions, _ = evaluate_registered(STORE, "mura-wrist", "1", table, tree, tmp_path)
    assert predictions["image"].tolist() == table["image"].tolist()
    grey = np.array([read_square(Path(path), SIZE).mean() for path in table["path"]])
    np.testing.assert_allclose(predictions["logit"], 8 * (grey / 255 - 0.5), atol=1e-4)
    assert not table["image"].is_monotonic_increasing


@pytest.mark.parametrize("fields", [FITTED, {"threshold": 0.62, "rule": "sensitivity>=0.9"}])
def test_the_calibration_is_the_models_own(bundle, tree, tmp_path, fields):
    bundle(**fields)
    _, calibration = evaluate_registered(STORE, "mura-wrist", "1", read_index(tree, "wrist")[:3], tree, tmp_path)
    assert calibration == Calibration(**fields)


def test_a_model_without_a_stored_rule_gets_the_default_rule(bundle, tree, tmp_path):
    bundle(rule="")
    _, calibration = evaluate_registered(STORE, "mura-wrist", "1", read_index(tree, "wrist")[:3], tree, tmp_path)
    assert calibration.rule == "max-kappa"


def test_missing_images_raise_an_error(bundle, tree, tmp_path):
    bundle()
    table = read_index(tree, "wrist")[:3]
    with pytest.raises(
        DataError, match=r"3 of the 3 test images are missing below .*elsewhere on this machine, such as "
    ):
        evaluate_registered(STORE, "mura-wrist", "1", table, tmp_path / "elsewhere", tmp_path)


def test_a_corrupt_onnx_file_raises_an_error(bundle, tree, tmp_path):
    bundle().write_bytes(b"not a model")
    with pytest.raises(StoreError, match=r"model\.onnx cannot be run"):
        evaluate_registered(STORE, "mura-wrist", "1", read_index(tree, "wrist")[:3], tree, tmp_path)


def test_a_version_without_files_raises_an_error(store, tree, tmp_path):
    store.client.create_registered_model("mura-wrist")
    store.client.create_model_version("mura-wrist", source=f"{tmp_path}/nowhere")
    with pytest.raises(StoreError, match="The files of mura-wrist version 1 cannot be read"):
        evaluate_registered(store, "mura-wrist", "1", read_index(tree, "wrist")[:3], tree, tmp_path)
