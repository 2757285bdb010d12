"""A registered model that cannot be judged again: words, not a traceback that ends a sweep."""

from __future__ import annotations

import pytest

from muralab.data.index import read_index
from muralab.errors import StoreError
from muralab.registry.rejudge import _predict
from muralab.serving.config import ServingConfig


def test_a_file_that_is_no_model_is_named(tree, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    config = ServingConfig(image_size=32)
    with pytest.raises(StoreError, match=r"its model\.onnx cannot be run"):
        _predict(tmp_path / "model.onnx", config, read_index(tree, "wrist"), tmp_path)
