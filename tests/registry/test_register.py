"""From a network to a version that can be served: export, bundle, registration."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

from muralab.evaluation.gradcam import gradcam
from muralab.registry import export as export_module
from muralab.registry.bundle import check_bundle, read_requirements, write_bundle
from muralab.registry.export import export_onnx
from muralab.registry.register import build_config, register_model
from muralab.serving.config import ServingConfig, read_config, write_config
from muralab.tracking import Store
from muralab.training.network import Network

SIZE = 32
IMAGES = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), dtype=np.uint8)
CALIBRATION = {
    "image_temperature": 1.5,
    "image_intercept": -0.7,
    "study_temperature": 2.0,
    "study_intercept": -0.9,
    "threshold": 0.4,
    "rule": "max-kappa",
}
TAGS = {
    "muralab.recipe": "tiny",
    "muralab.part": "wrist",
    "muralab.synthetic": "true",
    "muralab.value_range": "0 4095",
}


def tiny(pool: nn.Module | None = None) -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), nn.ReLU())
    pool = pool or nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return Network(backbone=backbone, pool=pool, head=nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1))).eval()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(tiny(), SIZE, path, verify_images=IMAGES)
    return path


@pytest.mark.parametrize(
    ("served", "expected", "message"),
    [
        ([0.0, np.nan], [0.0, 0.0], "returns a probability that is not finite"),
        ([0.0, 0.0], [0.0, np.nan], "differs from torch by nan in probability"),
        ([0.0, 0.0], [0.0, 2e-4], "differs from torch by 0.0002 in probability"),
    ],
)
def test_an_export_that_differs_from_torch_is_refused(served, expected, message):
    with pytest.raises(RuntimeError, match=message):
        export_module._check_equal("probability", np.array(served), np.array(expected), 1e-4)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_exported_logits_and_heat_map_equal_torch(onnx, batch):
    import onnxruntime

    logits, heat = onnxruntime.InferenceSession(onnx).run(["logits", "heatmap"], {"images": IMAGES[:batch]})
    network, images = tiny(), torch.from_numpy(IMAGES[:batch])
    np.testing.assert_allclose(logits, network(images).detach(), atol=1e-5)
    np.testing.assert_allclose(heat, gradcam(network, images), atol=1e-6, rtol=1e-4)
    assert heat.max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), nn.MaxPool2d(3)])
def test_a_network_with_any_pooling_can_be_exported(tmp_path, pool):
    export_onnx(tiny(nn.Sequential(pool, nn.Flatten())), SIZE, tmp_path / "m.onnx", verify_images=IMAGES)
    assert (tmp_path / "m.onnx").stat().st_size > 1000


@pytest.mark.slow
def test_exporting_does_not_modify_the_network(tmp_path):
    network = tiny().train()
    export_onnx(network, SIZE, tmp_path / "m.onnx", verify_images=IMAGES)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_file_of_another_network_is_refused(onnx):
    other = tiny()
    nn.init.constant_(other.head[-1].bias, 3.0)
    with pytest.raises(RuntimeError, match=r"differs from torch by \S+ in probability"):
        export_module.verify_onnx(other, onnx, IMAGES)


class Shifted(torch.nn.Module):
    """Evidence that cancels: the second half of the maps is minus the first, and a little more."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.layer, self.more = nn.Conv2d(1, 4, 3, padding=1), more

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.layer(images)
        return torch.cat([maps, -maps + self.more], dim=1)


def cancelling(more: float) -> Network:
    torch.manual_seed(0)
    head = nn.Linear(8, 1)
    nn.init.constant_(head.weight, 1.0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone=Shifted(more), pool=pool, head=nn.Sequential(head), channels=1).eval()


def test_rounding_of_a_heat_map_whose_terms_cancel_is_accepted():
    served, expected = np.array([[[3.34e-6, 0.0]]]), np.array([[[3.32e-6, 0.0]]])  # of a radiograph of a hand
    export_module._check_heat(served, expected, terms=0.1)
    with pytest.raises(RuntimeError, match=r"differs from torch by 0\.00\d+ in heat map"):
        export_module._check_heat(served, expected, terms=1e-5)


@pytest.mark.slow
def test_a_file_with_another_heat_map_is_refused(tmp_path):
    export_onnx(cancelling(1e-7), SIZE, tmp_path / "m.onnx", verify_images=IMAGES)
    with pytest.raises(RuntimeError, match=r"differs from torch by \S+ in heat map"):
        export_module.verify_onnx(with_other_heat(cancelling(1e-7)), tmp_path / "m.onnx", IMAGES)


def with_other_heat(network: Network) -> Network:
    """The same logits, with evidence that does not cancel."""
    network.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), OnlyValue())
    return network


class OnlyValue(torch.nn.Module):
    """The values as they are, with the gradient of the first half only."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values[:, :4], values[:, 4:].detach()], dim=1)


def test_gradcam_is_the_weighted_sum_of_the_feature_maps():
    network, images = tiny(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())), torch.from_numpy(IMAGES[:2])
    network.head = nn.Linear(8, 1)
    maps = network.maps(images)
    weights = network.head.weight.reshape(1, 8, 1, 1) / maps[0, 0].numel()
    torch.testing.assert_close(gradcam(network, images), torch.relu((weights * maps).sum(1)))


def test_the_configuration_is_read_back_as_written(tmp_path):
    config = build_config(SIZE, CALIBRATION, TAGS, np.repeat(IMAGES, 5, axis=0))
    write_config(config, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config
    assert config.synthetic
    assert config.value_range == (0, 4095)
    assert config.typical_mean[0] < IMAGES[0].mean() < config.typical_mean[1]


def test_serving_needs_neither_torch_nor_ray():
    names = {line.partition("==")[0] for line in read_requirements()}
    assert names == {
        "imagecodecs",
        "mlflow",
        "numpy",
        "onnxruntime",
        "opencv-python-headless",
        "pandas",
        "pillow",
        "pydicom",
    }


@pytest.mark.slow
def test_a_bundle_of_another_network_is_refused(onnx, tmp_path):
    write_bundle(tmp_path / "bundle", onnx, ServingConfig(image_size=SIZE))
    with pytest.raises(RuntimeError, match=r"The served model differs from its network by 0\.\d+"):
        check_bundle(tmp_path / "bundle", IMAGES, np.ones(len(IMAGES)))


def register(uri: str, experiment: str = "lab", name: str = "mura-wrist"):
    client = MlflowClient(uri, registry_uri=uri)
    run = client.create_run(client.create_experiment(experiment))
    registered = register_model(
        network=tiny(),
        image_size=SIZE,
        calibration=CALIBRATION,
        name=name,
        run_id=run.info.run_id,
        card="# A card",
        tags=TAGS,
        verify_images=IMAGES,
        store=Store(uri=uri),
    )
    return client, run, registered


@pytest.fixture(scope="module")
def local(tmp_path_factory, empty_database):
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_database, folder / "mlflow.db")
    with contextlib.chdir(folder):
        yield register(f"sqlite:///{folder}/mlflow.db")


@pytest.mark.slow
def test_registration_sets_version_alias_card_and_tags(local):
    client, run, registered = local
    version = client.get_model_version_by_alias("mura-wrist", "champion")
    assert (str(version.version), version.run_id) == (registered.version, run.info.run_id)
    assert version.description.startswith("# A card")
    assert "Not a medical device" in version.description
    assert version.tags == TAGS
    assert registered.uri == "models:/mura-wrist@champion"


@pytest.mark.slow
def test_the_model_is_logged_in_its_runs_experiment(local):
    client, run, _ = local
    (output,) = client.get_run(run.info.run_id).outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert logged.experiment_id == run.info.experiment_id
    assert logged.status == "READY"


@pytest.mark.slow
def test_registering_starts_no_run(local):
    client, run, _ = local
    assert mlflow.active_run() is None
    assert len(client.search_runs([run.info.experiment_id])) == 1


@pytest.mark.slow
def test_a_failed_check_registers_nothing(local, monkeypatch):
    client, _, _ = local
    monkeypatch.setattr(export_module, "PROBABILITY_TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="Nothing was registered"):
        register(client.tracking_uri, "another experiment")
    assert len(client.search_model_versions("name='mura-wrist'")) == 1


@pytest.mark.slow
def test_a_model_is_stored_on_and_read_from_a_tracking_server(tracking_server, tmp_path):
    client, _, registered = register(tracking_server, "registry", "mura-remote")
    source = client.get_model_version_download_uri("mura-remote", registered.version)
    folder = mlflow.artifacts.download_artifacts(source, dst_path=tmp_path, tracking_uri=tracking_server)
    assert (Path(folder) / "artifacts" / "model.onnx").stat().st_size > 1000


@pytest.mark.slow
def test_a_bundle_ships_the_serving_code_only(onnx, tmp_path):
    write_bundle(tmp_path / "bundle", onnx, ServingConfig(image_size=SIZE))
    code = tmp_path / "bundle" / "code" / "muralab"
    assert {path.relative_to(code).as_posix() for path in code.iterdir()} == {
        "__init__.py",
        "data",
        "errors.py",
        "processor.py",
        "serving",
    }
    assert {path.name for path in (code / "data").iterdir()} == {"__init__.py", "body_parts.py", "images"}
