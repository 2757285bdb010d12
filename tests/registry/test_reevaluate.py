"""A registered model judged again: each picture its own logit, the stored calibration, words where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muralab.data.files import read_square
from muralab.data.mura import read_index
from muralab.errors import DataError, StoreError
from muralab.evaluation.calibration import Calibration
from muralab.registry import reevaluate as rejudge
from muralab.registry.reevaluate import _predict, judge_registered
from muralab.serving.config import ServingConfig
from tests.serving.conftest import SIZE, write_onnx

FITTED = {
    "image_temperature": 1.3,
    "study_temperature": 1.7,
    "threshold": 0.31,
    "rule": "youden",
    "uncertain_low": 0.2,
    "uncertain_high": 0.4,
}
ANY: Any = None  # a store that is not asked


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A function of a stored config's fields: the files that a registered version is read from."""

    def lay(**fields: Any) -> None:
        write_onnx(tmp_path / "model.onnx")
        config = ServingConfig(image_size=SIZE, **fields)
        monkeypatch.setattr(rejudge, "_download", lambda *_: (tmp_path / "model.onnx", config))

    return lay


def test_each_picture_gets_its_own_logit_whatever_the_order_of_rows(bundle, tree, tmp_path):
    bundle()
    table = read_index(tree, "wrist").sample(frac=1, random_state=0, ignore_index=True)
    assert len(table) > 2 * rejudge.BATCH_SIZE
    judged, _ = judge_registered(ANY, "mura-wrist", "1", table, tree, tmp_path)
    assert judged["image"].tolist() == table["image"].tolist()
    grey = np.array([read_square(Path(path), SIZE).mean() for path in table["path"]])
    np.testing.assert_allclose(judged["logit"], 8 * (grey / 255 - 0.5), atol=1e-4)
    assert not table["image"].is_monotonic_increasing


@pytest.mark.parametrize("fields", [FITTED, {"threshold": 0.62, "rule": "sensitivity>=0.9"}])
def test_the_calibration_is_the_models_own(bundle, tree, tmp_path, fields):
    bundle(**fields)
    _, calibration = judge_registered(ANY, "mura-wrist", "1", read_index(tree, "wrist")[:3], tree, tmp_path)
    assert calibration == Calibration(**fields)


def test_a_model_that_stored_no_rule_has_the_usual_one(bundle, tree, tmp_path):
    bundle(rule="")
    _, calibration = judge_registered(ANY, "mura-wrist", "1", read_index(tree, "wrist")[:3], tree, tmp_path)
    assert calibration.rule == "max-kappa"


def test_pictures_that_are_not_here_are_named(bundle, tree, tmp_path):
    bundle()
    table = read_index(tree, "wrist")[:3]
    with pytest.raises(DataError, match=r"3 of its 3 test pictures are not on this machine, such as .*elsewhere"):
        judge_registered(ANY, "mura-wrist", "1", table, tmp_path / "elsewhere", tmp_path)


def test_a_file_that_is_no_model_is_named(tree, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    config = ServingConfig(image_size=32)
    with pytest.raises(StoreError, match=r"its model\.onnx cannot be run"):
        _predict(tmp_path / "model.onnx", config, read_index(tree, "wrist"), tmp_path)
