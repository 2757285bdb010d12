"""Pretrained weights: resolving, reading, loading, and BatchNorm statistics of random weights."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from muralab.errors import WeightsError
from muralab.training.weights import estimate_batchnorm, file_digest, load_backbone, read_state, resolve_weights
from tests.training.conftest import TinyDataset, build_network

NETWORK = "inception_v3.tf_in1k"


def write(path: Path, state: dict[str, Any]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a hub at a port where nothing listens."""
    import huggingface_hub

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


def test_none_resolves_to_no_file() -> None:
    assert resolve_weights("none", NETWORK) is None


def test_a_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_weights("w.pth", NETWORK) == tmp_path / "w.pth"


def test_a_missing_file_is_reported_with_what_was_expected(tmp_path: Path) -> None:
    message = r"there is no such file\. Expected a state dict of timm's 'inception_v3' .*weights=auto .* weights=none"
    with pytest.raises(WeightsError, match=message):
        resolve_weights(str(tmp_path / "absent.pth"), NETWORK)


@pytest.mark.parametrize("name", ["inception.pth", "inception_v3.tf_in1k.safetensors", "inception_v3.bin"])
def test_a_folder_has_a_file_named_after_the_recipe_or_the_network(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "cnn.pth").touch()
    assert resolve_weights(str(tmp_path), NETWORK, recipe="inception") == tmp_path / name


def test_a_folder_without_such_a_file_is_reported_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no inception.safetensors or inception_v3.tf_in1k.safetensors"):
        resolve_weights(str(tmp_path), NETWORK, recipe="inception")


@pytest.mark.usefixtures("no_hub")
def test_an_unreachable_hub_is_reported_soon_with_offline_advice() -> None:
    start_s = time.monotonic()
    message = (
        r"hub cannot be reached .*timm.create_model\('inception_v3.tf_in1k', pretrained=True\).*weights=<its path>"
    )
    with pytest.raises(WeightsError, match=message):
        resolve_weights("auto", NETWORK)
    assert time.monotonic() - start_s < 40  # timm itself retries for 54 s


@pytest.mark.usefixtures("no_hub")
def test_a_silent_hub_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        with pytest.raises(WeightsError, match="hub cannot be reached"):
            resolve_weights("auto", NETWORK, probe_timeout_s=0.3)


def test_cached_weights_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "cached"))
    assert resolve_weights("auto", NETWORK) == tmp_path / "cached"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_are_loaded_without_the_classifier_of_the_file(tmp_path: Path, suffix: str) -> None:
    source, target = build_network(1).backbone, build_network(2).backbone
    path = write(tmp_path / f"w.{suffix}", source.state_dict() | {"fc.weight": torch.zeros(3)})
    load_backbone(target, path)
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_a_state_dict_inside_a_checkpoint_is_found(tmp_path: Path) -> None:
    state = build_network().backbone.state_dict()
    assert set(read_state(write(tmp_path / "w.pth", {"epoch": 3, "state_dict": state}))) == set(state)


def test_half_precision_is_converted_to_float32(tmp_path: Path) -> None:
    state = read_state(write(tmp_path / "w.safetensors", {"a": torch.ones(2).half(), "n": torch.tensor(3)}))
    assert (state["a"].dtype, state["n"].dtype) == (torch.float32, torch.int64)


def test_an_older_file_without_batch_counters_is_loaded(tmp_path: Path) -> None:
    state = build_network().backbone.state_dict()
    del state["1.num_batches_tracked"]
    load_backbone(build_network(1).backbone, write(tmp_path / "w.pth", state))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: state.pop("0.weight"), r"1 missing \(0.weight\)"),
        (lambda state: state.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda state: state.update({"0.bias": torch.zeros(7)}), r"1 of another shape \(0.bias\)"),
    ],
)
def test_mismatched_weights_are_refused(tmp_path: Path, change: Any, problem: str) -> None:
    state = dict(build_network().backbone.state_dict())
    change(state)
    with pytest.raises(WeightsError, match=rf"do not fit the recipe's backbone: tensors {problem}.*weights=none"):
        load_backbone(build_network().backbone, write(tmp_path / "w.pth", state))


@pytest.mark.parametrize("content", [b"", b"not weights"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_that_is_not_a_state_dict_is_reported(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} is not a state dict of tensors in safetensors or .pth format"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": torch.ones(1)}}, {"a": 3}])
def test_a_pth_of_other_objects_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(WeightsError, match="is not a state dict"):
        read_state(write(tmp_path / "w.pth", content))


def test_code_in_a_pth_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(WeightsError, match="is not a state dict"):
        read_state(write(tmp_path / "w.pth", {"a": Evil()}))
    assert not (tmp_path / "ran").exists()


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    assert file_digest(tmp_path / "w") == "ba7816bf8f01cfea"


def test_estimated_statistics_are_those_of_the_images(dataset: TinyDataset) -> None:
    network = build_network().eval()
    estimate_batchnorm(network, iter([dataset.images[:10], dataset.images[10:]]))
    with torch.no_grad():
        maps = network.backbone[0](network.prepare(dataset.images))
    assert torch.allclose(network.backbone[1].running_mean, maps.mean((0, 2, 3)), atol=1e-5)
    assert not network.training
    assert network.backbone[1].momentum == 0.1


def test_estimated_statistics_keep_activations_of_a_random_network_small() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    network = nn.Sequential(*layers).eval()
    images = 1e3 * torch.rand(8, 4, 8, 8)
    estimate_batchnorm(network, [images])
    with torch.no_grad():
        assert 0.1 < network(images).std() < 10
