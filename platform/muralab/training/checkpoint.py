"""Checkpoints: one file each, tensors as safetensors and the rest as JSON in its header, written atomically.

Each file contains a checksum of its content, so that a damaged one is never taken for a good one.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muralab.disk import disk_problem
from muralab.errors import DiskError, WeightsError

if TYPE_CHECKING:
    import torch

STATE_KEY = "muralab"
CHECKSUM_KEY = "crc32"
"""In the header: of tensors and state; files of earlier versions have none."""


def write_tensors(
    path: Path,
    tensors: dict[str, torch.Tensor],
    state: dict[str, Any] | None = None,
    *,
    previous: Path | None = None,
) -> None:
    """Write tensors and a JSON-serializable state; a crash leaves either the old file or the new one.

    Args:
        path: the file, written by one process only; its folder is created.
        tensors: name -> tensor, on any device.
        state: anything that JSON can represent.
        previous: where the file that is replaced is kept.

    Raises:
        DiskError: the disk is full or read-only; the old file is still there.
    """
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.part")  # a fixed name: the remains of a killed process are overwritten
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The format refuses tensors that share memory, so each one is copied.
        copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
        text = json.dumps(state or {})
        save_file(copies, temporary, metadata={STATE_KEY: text, CHECKSUM_KEY: _checksum(copies, text)})
        if previous is not None and path.exists():
            _keep(path, previous)
        temporary.replace(path)
    except Exception as error:
        problem = disk_problem(error, path)
        if problem:
            raise DiskError(problem) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _keep(path: Path, previous: Path) -> None:
    """Keep a file that is about to be replaced, without a moment in which neither name exists."""
    spare = previous.with_name(f".{previous.name}.part")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a file system without hard links
        path.replace(previous)
    else:
        spare.replace(previous)


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """CRC-32 of a state's text and of all tensors: names, types, shapes and bytes; 8 hexadecimal digits."""
    import torch

    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the tensors and the state that `write_tensors` wrote.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        text = metadata.get(STATE_KEY, "{}")
        if CHECKSUM_KEY in metadata and metadata[CHECKSUM_KEY] != _checksum(tensors, text):
            raise ValueError("its checksum does not match its content")
        return tensors, json.loads(text)
    except Exception as error:
        raise WeightsError(f"The checkpoint {path} cannot be read ({error}). Delete it to start over.") from error


def read_newest(paths: list[Path]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The first of some checkpoints that exists and is undamaged; without one, nothing to resume from.

    A damaged file is removed, so that the next checkpoint does not keep it as the previous one.

    Args:
        paths: newest first.

    Raises:
        WeightsError: a file exists and cannot be read for another reason, which says nothing about its content.
    """
    for path in paths:
        if not path.exists():
            continue
        try:
            return read_tensors(path)
        except WeightsError as error:
            if isinstance(error.__cause__, OSError):
                raise
            path.unlink(missing_ok=True)
    return {}, {}


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
