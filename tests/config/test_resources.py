"""Cores and memory where a container or a service has a limit: both kinds of control groups, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from muralab.config import resources as machine
from muralab.config.resources import count_cpus, free_memory

VERSION_2 = {
    "cpu.max": "150000 100000",
    "job/cpu.max": "max 100000",
    "memory.max": "3000",
    "memory.current": "2500",
    "memory.stat": "anon 1500\ninactive_file 700\n",
    "job/memory.max": "max",
}
VERSION_1 = {
    "cpu/cpu.cfs_quota_us": "150000",
    "cpu/cpu.cfs_period_us": "100000",
    "memory/memory.limit_in_bytes": "3000",
    "memory/memory.usage_in_bytes": "2500",
    "memory/memory.stat": "inactive_file 700\n",
}
GROUPS = {"2": ("0::/job", VERSION_2), "1": ("4:memory:/job\n1:cpu,cpuacct:/", VERSION_1), "none": ("0::/", {})}


def limit(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have these limits, and 8,192 free bytes."""
    own, files = GROUPS[kind]
    for name, text in {"own": own, "meminfo": "MemTotal: 16 kB\nMemAvailable: 8 kB\n", **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for name, path in (("CGROUPS", folder), ("OWN_CGROUPS", folder / "own"), ("MEMORY_INFO", folder / "meminfo")):
        monkeypatch.setattr(machine, name, path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: range(16))


@pytest.mark.parametrize(("kind", "cpus", "memory"), [("2", 1, 1200), ("1", 1, 1200), ("none", 16, 8192)])
def test_limits_of_control_groups_hold(
    kind: str, cpus: int, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(kind, tmp_path, monkeypatch)
    assert (count_cpus(), free_memory()) == (cpus, memory)


def test_a_system_that_does_not_say_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit("none", tmp_path, monkeypatch)
    (tmp_path / "meminfo").unlink()
    assert free_memory() is None
