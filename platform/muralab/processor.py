"""What this process may use of the processor: cores, within affinity and control groups, and instructions.

A registered model ships its own copy of this module, so it needs the standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def count_cpus() -> int:
    """Number of cores that this process may use; a quota of 2.5 cores counts as 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _cpu_quotas())]))


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


def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets, as Linux names them; none on other systems."""
    return frozenset(_cpu_info().get("flags", "").split())


def cpu_vendor() -> str:
    """The processor's vendor, as Linux names it; empty on other systems."""
    return _cpu_info().get("vendor_id", "")


@functools.cache
def _cpu_info() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
