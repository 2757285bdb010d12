"""What this process may use of the machine: cores, GPUs and memory, less where a container or a service has a limit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a search may use at once."""

    cpus: int
    gpus: int
    cpus_per_trial: int
    gpus_per_trial: float
    max_concurrent: int


def count_gpus() -> int:
    """CUDA devices that torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def free_gpu_memory() -> int:
    """Bytes that are free on the fullest of the GPUs."""
    import torch

    return min(torch.cuda.mem_get_info(device)[0] for device in range(torch.cuda.device_count()))


def count_cpus() -> int:
    """Cores that this process may use; a quota of 2.5 of them is 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _cpu_quotas())]))


def free_memory() -> int | None:
    """Bytes of memory that can still be taken before something is killed; None where the system does not say."""
    found = [*_free_of_limits()]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = [line.split() for line in MEMORY_INFO.read_text().splitlines()]
        found += [1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:"]
    return min(found, default=None)


def _folders(controller: str) -> Iterator[Path]:
    """This process's control groups, its own first and the outermost last: a limit of each of them holds."""
    with contextlib.suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names == "" or controller in names.split(","):
                root = CGROUPS / controller if names else CGROUPS
                own = root / path.strip("/")
                yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _cpu_quotas() -> Iterator[float]:
    for folder in _folders("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no file, or `max`
            quota, period = (int(word) for word in (folder / "cpu.max").read_text().split())
            yield quota / period
        with contextlib.suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())  # -1: none
            if quota > 0:
                yield quota / int((folder / "cpu.cfs_period_us").read_text())


def _free_of_limits() -> Iterator[int]:
    """Of each limit what is left; pages of files that nobody maps are given back when memory is asked for."""
    for folder in _folders("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):
                lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
                files = sum(int(words[1]) for words in lines if words[0] == "inactive_file")
                left = int((folder / limit).read_text()) - int((folder / used).read_text()) + files
                yield max(0, left)
