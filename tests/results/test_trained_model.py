"""Networks read back from runs, also from runs of versions whose recipe had fewer values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from muralab.evaluation.calibration import Calibration
from muralab.recipe_loader import load_recipe
from muralab.results.trained_model import load_trained_model
from muralab.tracking import RunWriter, Store, open_store, read_run
from muralab.training.checkpoint import write_tensors

EARLIER = {"recipe": "cnn_attention", "image_size": 48, "model.filters": 4, "model.units": 10, "model.dropout": 0.3}
"""What a run of the first version of `cnn_attention` logged about its network."""
EARLIER_SHAPES = {
    "backbone.0.weight": (4, 1, 3, 3), "backbone.2.weight": (4, 4, 3, 3), "backbone.4.running_mean": (4,),
    "backbone.6.weight": (8, 4, 3, 3), "backbone.8.weight": (8, 8, 3, 3), "backbone.10.running_mean": (8,),
    "backbone.12.query.weight": (2, 8, 1, 1), "backbone.12.key.weight": (2, 8, 1, 1),
    "backbone.12.value.weight": (8, 8, 1, 1), "backbone.12.share": (1,),
    "head.1.weight": (10, 8), "head.3.weight": (10, 10), "head.5.weight": (1, 10),
}  # fmt: skip
"""Of its weights, without biases and the rest of BatchNorm."""


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return open_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_an_attention_network_of_the_first_version_is_read_back(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = load_recipe("cnn_attention").build(image_size=48, filters=4, layout="residual")
    state = network.state_dict()
    assert {name: tuple(state[name].shape) for name in EARLIER_SHAPES} == EARLIER_SHAPES
    network.backbone[12].share.data.fill_(0.5)  # type: ignore[operator,union-attr]
    write_tensors(tmp_path / "weights.safetensors", network.state_dict())
    with RunWriter(store) as writer:
        run = writer.start_run(kind="trial", name="t", tags={"muralab.recipe": "cnn_attention"})
        writer.log_resolved(run, EARLIER)
        writer.log_file(run, tmp_path / "weights.safetensors", "weights")
        writer.log_text(run, json.dumps(Calibration().to_dict()), "calibration.json")
        writer.finish(run)
        record = read_run(store, writer.run_id(run))
    images = torch.randint(0, 255, (3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        found, expected = load_trained_model(store, record).network(images), network.eval()(images)
    torch.testing.assert_close(found, expected)
