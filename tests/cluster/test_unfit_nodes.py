"""Nodes that cannot train: each is named with its reason before the first trial, or while it trains."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from muralab.tracking import open_store
from tests.cluster.nodes import RayNodes, free_port
from tests.fixtures.disks import small_disk_at
from tests.fixtures.runs import find_runs
from tests.tune.conftest import Bench, finish, wait_until

pytestmark = pytest.mark.long
HEAD, UNFIT = "127.0.0.2", "127.0.0.6"
STORAGE = "s3://lab/unfit"


@pytest.fixture(scope="module")
def nodes(in_lab: dict[str, str]) -> Iterator[RayNodes]:
    """A head, to which a test adds a node that does not fit."""
    with RayNodes({key: value for key, value in in_lab.items() if key.startswith("AWS_")}) as nodes:
        nodes.start(HEAD)
        yield nodes


def start(bench: Bench, nodes: RayNodes, **values: object) -> subprocess.Popen[str]:
    options = {
        "trials": 2, "epochs": "1+3", "pruning": "off", "max_concurrent": "auto", "cpus_per_trial": 1,
        "ray_address": nodes.address, "storage": STORAGE, **values,
    }  # fmt: skip
    return bench.start(*bench.tune(**options))


def refusal(bench: Bench, nodes: RayNodes, **environment: str) -> str:
    """What the command says of a cluster with a node that has these variables."""
    nodes.start(UNFIT, **environment)
    try:
        own = replace(bench, experiment="unfit")
        process = start(own, nodes)
        output = finish(process, 300)
        assert process.returncode == 2, output
        assert find_runs(bench.store, "unfit") == []
        return " ".join(output.split())
    finally:
        nodes.kill(UNFIT)
        shutil.rmtree(nodes.folder / UNFIT)


def test_another_version_of_a_package_is_named(bench: Bench, nodes: RayNodes, tmp_path: Path) -> None:
    import torch

    other = tmp_path / "torch-2.0.7.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.7\n")
    version = torch.__version__.partition("+")[0]
    output = refusal(bench, nodes, PYTHONPATH=str(tmp_path))
    assert f"1 node cannot train: 1. {UNFIT}: torch 2.0.7 (the command has {version}" in output


def test_a_storage_that_one_node_does_not_reach_is_named(bench: Bench, nodes: RayNodes) -> None:
    output = refusal(bench, nodes, AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    assert f"1 node cannot train: 1. {UNFIT}: storage={STORAGE} cannot be used: it does not answer" in output


def test_a_disk_without_space_is_named(bench: Bench, nodes: RayNodes, tmp_path: Path) -> None:
    with small_disk_at(tmp_path / "disk", 20 * 2**20) as disk:
        output = refusal(bench, nodes, XDG_CACHE_HOME=str(disk))
    assert f"1 node cannot train: 1. {UNFIT}: 20 MiB of disk are free at {disk}/muralab: free some" in output


def test_trials_leave_a_node_whose_disk_fills_up(bench: Bench, nodes: RayNodes, tmp_path: Path) -> None:
    own = replace(bench, experiment="filling", store=open_store(bench.store.uri))
    with small_disk_at(tmp_path / "disk", 300 * 2**20) as disk:
        nodes.start(UNFIT, XDG_CACHE_HOME=str(disk / "cache"), TMPDIR=str(disk))
        process = start(own, nodes, epochs="1+60")
        wait_until(lambda: any(disk.rglob("last.safetensors")), process)
        fill(disk / "other")
        output = " ".join(finish(process, 600).split())
        nodes.kill(UNFIT)
    assert process.returncode == 0, output
    assert output.count(f"{UNFIT}: The disk is full at {disk}") == 1
    assert {run.status for run in find_runs(own.store, "filling")} == {"FINISHED"}


def fill(file: Path) -> None:
    """Write until nothing is left."""
    with file.open("wb") as big:
        try:
            while True:
                big.write(b"0" * 2**20)
        except OSError:
            return
