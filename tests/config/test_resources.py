"""Cores and memory within the limits of control groups, version 1 and 2, given as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from muralab import processor
from muralab.config import resources
from muralab.config.resources import count_gpus, free_gpu_memory, free_memory
from muralab.processor import count_cpus

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
GROUPS = {
    "2": ("0::/job", VERSION_2),
    "1": ("4:memory:/job\n1:cpu,cpuacct:/", VERSION_1),
    "unlimited": ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1"}),
    "none": ("0::/", {}),
}


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that gives this machine 16 cores, 8,192 free bytes and the limits of a kind of `GROUPS`."""

    def apply(kind: str) -> None:
        own, files = GROUPS[kind]
        for name, text in {"own": own, **files}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(processor, "CGROUPS", tmp_path)
        monkeypatch.setattr(processor, "OWN_CGROUPS", tmp_path / "own")
        monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: SimpleNamespace(available=8192))
        monkeypatch.setattr(processor.os, "sched_getaffinity", lambda _: range(16))

    return apply


@pytest.mark.parametrize(
    ("kind", "cpus", "memory"), [("2", 1, 1200), ("1", 1, 1200), ("unlimited", 16, 8192), ("none", 16, 8192)]
)
def test_limits_of_control_groups_apply(limit: Callable[[str], None], kind: str, cpus: int, memory: int) -> None:
    limit(kind)
    assert (count_cpus(), free_memory()) == (cpus, memory)


def test_a_fraction_of_a_core_is_one(limit: Callable[[str], None], tmp_path: Path) -> None:
    limit("2")
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert count_cpus() == 1


def test_an_exceeded_limit_leaves_nothing(limit: Callable[[str], None], tmp_path: Path) -> None:
    limit("2")
    (tmp_path / "memory.current").write_text("9000")
    assert free_memory() == 0


def test_the_free_memory_of_this_machine() -> None:
    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_the_gpu_with_the_least_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [5, 3]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 8))
    assert (count_gpus(), free_gpu_memory()) == (2, 3)


def test_no_gpu_is_counted_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert count_gpus() == 0
