"""The average of several networks: its logits, its features, and the file that serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from muralab.registry.export import export_onnx
from muralab.training.ensemble import average_networks
from muralab.training.network import Network
from recipes import cnn, inception_add_gate

SIDE = 80
IMAGES = torch.randint(0, 256, (4, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def members(build, number: int) -> list[Network]:
    networks = []
    for seed in range(number):
        torch.manual_seed(seed)
        networks.append(build(image_size=SIDE).eval())
    return networks


@pytest.mark.parametrize("recipe", [cnn, inception_add_gate])
def test_its_logits_are_the_mean_of_its_members(recipe) -> None:
    networks = members(recipe.build, 3)
    ensemble = average_networks(networks).eval()
    with torch.inference_mode():
        wanted = torch.stack([network(IMAGES) for network in networks]).mean(dim=0)
        features = torch.cat([network.pooled(IMAGES) for network in networks], dim=1)
        torch.testing.assert_close(ensemble(IMAGES), wanted)
        torch.testing.assert_close(ensemble.pooled(IMAGES), features)
    assert not torch.allclose(wanted, networks[0](IMAGES))


def test_its_weights_are_read_back(tmp_path: Path) -> None:
    ensemble, other = (average_networks(members(cnn.build, 2)).eval() for _ in range(2))
    torch.nn.init.zeros_(next(other.parameters()))
    other.load_state_dict(ensemble.state_dict(), strict=True)
    torch.testing.assert_close(other(IMAGES), ensemble(IMAGES))


@pytest.mark.slow
def test_it_is_exported_with_its_heat_map_as_one_file(tmp_path: Path) -> None:
    import onnxruntime

    ensemble = average_networks(members(cnn.build, 2)).eval()
    export_onnx(ensemble, SIDE, tmp_path / "model.onnx", verify_images=IMAGES.numpy())
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    logits, heat, _ = session.run(None, {"images": IMAGES.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, ensemble(IMAGES).numpy(), atol=1e-5)
    assert heat.shape[0] == len(IMAGES)
