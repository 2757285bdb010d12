"""Pretrained weights: resolved to a local file once, and failing fast with advice for machines without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from muralab.errors import WeightsError
from muralab.paths import expand

if TYPE_CHECKING:
    import torch
    from torch import nn

AUTO, NONE = "auto", "none"
PROBE_TIMEOUT_S = 4.0
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
CLASSIFIER_PREFIXES = ("fc.", "classifier.", "head.", "AuxLogits.", "last_linear.")


def resolve_weights(
    weights: str, timm_name: str, *, recipe: str = "", probe_timeout_s: float = PROBE_TIMEOUT_S
) -> Path | None:
    """Resolve what a recipe starts from to a local file.

    Args:
        weights: `auto` (timm's ImageNet weights, from its cache or its hub), `none`, or the path of a file, or of a
            folder with a file that is named after the recipe or the network.
        timm_name: network and tag of its weights, such as `inception_v3.tf_in1k`.
        recipe: the recipe's name.
        probe_timeout_s: how long to wait for the hub.

    Returns:
        The file, or None for random weights.

    Raises:
        WeightsError: the file is missing, or it is not cached and the hub cannot be reached.
    """
    if weights == NONE:
        return None
    if weights == AUTO:
        return _from_hub(timm_name, probe_timeout_s)
    path = expand(weights)
    if path.is_dir():
        return _in_folder(path, [name for name in (recipe, timm_name, timm_name.partition(".")[0]) if name])
    if not path.is_file():
        raise WeightsError(
            f"weights={weights}: there is no such file. Expected a state dict of timm's '{timm_name.split('.')[0]}' "
            "as safetensors or .pth; or use weights=auto (download) or weights=none (random)."
        )
    return path.resolve()


def _in_folder(folder: Path, stems: Sequence[str]) -> Path:
    """The file of a folder that has the first of some names, with any suffix of weights."""
    for path in (folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES):
        if path.is_file():
            return path.resolve()
    names = " or ".join(f"{stem}{SUFFIXES[0]}" for stem in stems)
    raise WeightsError(f"weights={folder}: this folder has no {names} (.pth would do as well).")


def _from_hub(timm_name: str, probe_timeout_s: float) -> Path:
    import huggingface_hub
    import requests
    import timm

    config = timm.get_pretrained_cfg(timm_name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        raise WeightsError(f"timm has no weights for '{timm_name}'. Use weights=<path of a state dict>.")
    cached = huggingface_hub.try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    try:
        # The hub's client retries for most of a minute; one short request first shows whether the hub is reachable.
        requests.head(huggingface_hub.constants.ENDPOINT, timeout=probe_timeout_s, allow_redirects=False)
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors", etag_timeout=probe_timeout_s))
    except Exception as error:
        raise WeightsError(
            f"The ImageNet weights '{repository}' are not on this machine and their hub cannot be reached "
            f'({type(error).__name__}). On a machine with a network, run `python -c "import timm; '
            f"timm.create_model('{timm_name}', pretrained=True)\"`, copy the file `model.safetensors` from its "
            "cache to this machine and use weights=<its path>; or train from random weights with weights=none. "
            "docs/recipes.md explains both."
        ) from error


def file_digest(path: Path) -> str:
    """First 16 hexadecimal digits of the file's SHA-256."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from safetensors or a .pth of tensors only; floating-point tensors become float32.

    Raises:
        WeightsError: the file is neither.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    except Exception as error:
        # torch's own message suggests loading with weights_only=False, which would run code from the file.
        raise WeightsError(
            f"{path} is not a state dict of tensors in safetensors or .pth format ({type(error).__name__}). Use "
            "another file, weights=auto or weights=none."
        ) from error


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load ImageNet weights from a file into a backbone, ignoring the file's classifier.

    Raises:
        WeightsError: a tensor is missing, unexpected or has another shape.
    """
    wanted = backbone.state_dict()
    state = {k: v for k, v in read_state(path).items() if k in wanted or not k.startswith(CLASSIFIER_PREFIXES)}
    for key, value in wanted.items():  # older files lack BatchNorm's batch counter
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, value)
    missing = sorted(set(wanted) - set(state))
    unexpected = sorted(set(state) - set(wanted))
    mismatched = sorted(k for k in set(state) & set(wanted) if state[k].shape != wanted[k].shape)
    if missing or unexpected or mismatched:
        parts = [
            f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for problem, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched))
            if names
        ]
        raise WeightsError(
            f"The weights in {path} do not fit the recipe's backbone: tensors {'; '.join(parts)}. "
            "Use the state dict of the same timm network, weights=auto or weights=none."
        )
    backbone.load_state_dict(state, strict=True)


def estimate_batchnorm(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Estimate BatchNorm statistics by a pass over batches of images uint8 [B, S, S].

    A deep network with random weights and initial statistics has activations above 1e10 in evaluation mode, so a frozen
    random backbone needs this before its features are usable.
    """
    import torch
    from torch import nn

    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average over the batches
    training = network.training
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(training)
