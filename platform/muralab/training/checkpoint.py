"""One file a checkpoint: tensors as safetensors, the rest as JSON in its header; written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muralab.errors import WeightsError

if TYPE_CHECKING:
    import torch

STATE_KEY = "muralab"


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any] | None = None) -> None:
    """Write tensors and a JSON-able state so that a crash leaves either the old file or the new one.

    Args:
        path: the file, which one process writes; its folder is made.
        tensors: name -> tensor, on any device.
        state: anything that JSON can hold.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")  # always the same: what a killed process left is written over
    try:
        # Tensors that share memory are refused by the format, so each is written as its own copy.
        own = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
        save_file(own, temporary, metadata={STATE_KEY: json.dumps(state or {})})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the state that `write_tensors` wrote.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            state = json.loads((handle.metadata() or {}).get(STATE_KEY, "{}"))
            return {key: handle.get_tensor(key) for key in handle.keys()}, state  # noqa: SIM118
    except Exception as error:
        raise WeightsError(f"The checkpoint {path} cannot be read ({error}). Delete it to start over.") from error


def with_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, each name behind `prefix/`."""
    return {f"{prefix}/{key}": value for key, value in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names lie behind `prefix/`, without it."""
    start = f"{prefix}/"
    return {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts, named by parameter position."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{key}": value for i, slots in state.items() for key, value in slots.items()}


def fill_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `optimiser_tensors` took, keeping the groups' own rates."""
    import torch

    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        position, key = name.split(".", 1)
        state.setdefault(int(position), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, slots in optimiser.state.items():
        for key, value in slots.items():
            if value.shape == parameter.shape:
                # A file keeps tensors contiguous. The fused kernel pairs memory, not indices: a moment must lie as its
                # parameter does (channels_last), or each weight would go on with another's.
                slots[key] = torch.empty_like(parameter).copy_(value)
