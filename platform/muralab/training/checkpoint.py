"""Checkpoints: one file each, tensors as safetensors and the rest as JSON in its header, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muralab.errors import WeightsError

if TYPE_CHECKING:
    import torch

STATE_KEY = "muralab"


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any] | None = None) -> None:
    """Write tensors and a JSON-serializable state; a crash leaves either the old file or the new one.

    Args:
        path: the file, written by one process only; its folder is created.
        tensors: name -> tensor, on any device.
        state: anything that JSON can represent.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")  # a fixed name: the remains of a killed process are overwritten
    try:
        # The format refuses tensors that share memory, so each one is copied.
        copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
        save_file(copies, temporary, metadata={STATE_KEY: json.dumps(state or {})})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the tensors and the state that `write_tensors` wrote.

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
    """Prepend `prefix/` to the names."""
    return {f"{prefix}/{key}": value for key, value in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Select the tensors whose names start with `prefix/`, and strip it."""
    start = f"{prefix}/"
    return {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts, named by parameter index."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{key}": value for i, slots in state.items() for key, value in slots.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Load the tensors of `optimiser_tensors`; the groups keep their learning rates."""
    import torch

    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, slots in optimiser.state.items():
        for key, value in slots.items():
            if value.shape == parameter.shape:
                # Files store tensors contiguously, but the fused kernel pairs elements by memory position: a moment
                # needs the memory format of its parameter (channels_last), or weights get each other's moments.
                slots[key] = torch.empty_like(parameter).copy_(value)
