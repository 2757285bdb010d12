"""GPUs and memory that this process may use, within the limits of its container or service (control groups)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from muralab.processor import control_groups


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a search may use at the same time."""

    cpus: int
    gpus: int
    cpus_per_trial: int
    gpus_per_trial: float
    max_concurrent: int


def count_gpus() -> int:
    """Number of CUDA devices that torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def free_gpu_memory() -> int:
    """Free bytes of the GPU that has the fewest."""
    import torch

    return min(torch.cuda.mem_get_info(device)[0] for device in range(torch.cuda.device_count()))


def free_memory() -> int:
    """Bytes of memory that this process can still use before the system kills something."""
    available: int = psutil.virtual_memory().available
    return min([available, *_free_within_limits()])


def _free_within_limits() -> Iterator[int]:
    """What is left of each memory limit; inactive pages of files count as free, since the kernel reclaims them."""
    for folder in control_groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):
                lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
                files = sum(int(fields[1]) for fields in lines if fields[0] == "inactive_file")
                left = int((folder / limit).read_text()) - int((folder / used).read_text()) + files
                yield max(0, left)
