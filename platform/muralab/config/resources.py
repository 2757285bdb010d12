"""Cores, GPUs and memory that this process may use, within the limits of its container or service (control groups)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


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


def count_cpus() -> int:
    """Number of cores that this process may use; a quota of 2.5 cores counts as 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _cpu_quotas())]))


def free_memory() -> int:
    """Bytes of memory that this process can still use before the system kills something."""
    available: int = psutil.virtual_memory().available
    return min([available, *_free_within_limits()])


def control_groups(controller: str) -> Iterator[Path]:
    """The control groups of this process, innermost first; the limits of all of them apply."""
    with contextlib.suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names == "" or controller in names.split(","):
                root = CGROUPS / controller if names else CGROUPS
                own = root / path.strip("/")
                yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _cpu_quotas() -> Iterator[float]:
    for folder in control_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or `max`
            quota, period = (int(field) for field in (folder / "cpu.max").read_text().split())
            yield quota / period
        with contextlib.suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())  # -1: no limit
            if quota > 0:
                yield quota / int((folder / "cpu.cfs_period_us").read_text())


def _free_within_limits() -> Iterator[int]:
    """What is left of each memory limit; inactive pages of files count as free, since the kernel reclaims them."""
    for folder in control_groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):
                lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
                files = sum(int(fields[1]) for fields in lines if fields[0] == "inactive_file")
                left = int((folder / limit).read_text()) - int((folder / used).read_text()) + files
                yield max(0, left)
