"""A cluster that is checked before a search starts: what it refuses, what its nodes lack. A real one: tests/cluster."""

from __future__ import annotations

import platform
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muralab.config.commands import TuneConfig
from muralab.config.search import Machine
from muralab.errors import ClusterError, SettingsError
from muralab.storage import Storage
from muralab.tune import cluster, node_fitness
from muralab.tune.cluster import code_modules, explain_refusal, explain_silence, find_nodes, machines_of, node_list

ADDRESS = "10.0.0.1:6379"


def answers(*lines: str) -> str:
    """A program in the place of the one that connects."""
    return "import sys; sys.stdin.readline(); " + "; ".join(f"print({line!r}, flush=True)" for line in lines)


def find(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> tuple[Machine, ...]:
    monkeypatch.setattr(cluster, "PROGRAM", program)
    monkeypatch.setattr(cluster, "_check_port", lambda _: None)
    return find_nodes(ADDRESS, Storage(str(folder)), ["cnn"])


NODE = '{"name": "gpu1", "cpus": 8, "gpus": 2, "memory_bytes": 9000000000, "id": "ab"}'


def test_nodes_are_found_among_what_ray_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = answers(
        "Ray says this", '{"connecting": true}', '{"connected": true}', f'{{"nodes": [{NODE}], "problems": []}}'
    )
    assert find(monkeypatch, tmp_path, program) == (Machine(name="gpu1", cpus=8, gpus=2, memory_bytes=9_000_000_000),)


def test_each_node_that_does_not_fit_has_its_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = '{"nodes": [], "problems": ["a: timm is missing (the command has 1.0).", "b: torch 2.1 (...)."]}'
    with pytest.raises(ClusterError, match=r"(?s)2 nodes cannot train:\n  1\. a: timm.*\n  2\. b: torch.*`ray stop`"):
        find(monkeypatch, tmp_path, answers('{"connected": true}', found))


def test_a_cluster_without_cores_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no node of this cluster has a CPU"):
        find(monkeypatch, tmp_path, answers('{"nodes": [], "problems": []}'))


def test_a_refusal_ends_the_wait_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = time.monotonic()
    program = answers("[GcsRpcClient] Unauthenticated: Invalid auth token") + "; import time; time.sleep(600)"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "topsecret")
    with pytest.raises(ClusterError, match="the cluster refuses this machine's token"):
        find(monkeypatch, tmp_path, program)
    assert time.monotonic() - started < 15


def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(ClusterError, match=r"did not answer within 0 s\. Is the address that of its head"):
        find(monkeypatch, tmp_path, answers('{"connecting": true}') + "; import time; time.sleep(600)")


def test_an_address_where_nothing_listens_is_named_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=rf"ray_address={address}: nothing answers there \(.*refused"):
        find_nodes(address, Storage(str(tmp_path)), ["cnn"])


def test_refusals_name_their_cause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    assert "asks for a token, and this machine has none. Give" in explain_refusal("... Unauthenticated ...", ADDRESS)
    assert explain_refusal("Connecting to the existing Ray cluster", ADDRESS) == ""


@pytest.mark.parametrize("theirs", ["3.10.1", f"{platform.python_version()}9"], ids=["python", "patch"])
def test_rays_own_refusal_of_another_version_is_translated(theirs: str) -> None:
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.55.1", "python_version": theirs}, "node 10.0.0.1")
    ours = f"this machine Ray {node_fitness.installed_version('ray')} on Python {platform.python_version()}"
    found = explain_refusal(f"Traceback ...\nRuntimeError: {caught.value}\n", ADDRESS)
    assert f"the cluster runs Ray 2.55.1 on Python {theirs}, {ours}. Both must be the same" in found


def test_what_ray_wrote_last_explains_a_silence() -> None:
    text = "x\nConnectionError: Could not find any running Ray instance. Please specify the one to connect to\n"
    assert "no Ray runs on this machine" in explain_silence(text, ADDRESS, is_connected=False)
    assert "Ray wrote: ValueError: y" in explain_silence("ValueError: y", ADDRESS, is_connected=False)
    assert "nodes did not answer" in explain_silence("", ADDRESS, is_connected=True)


def test_nodes_are_asked_for_a_file_that_only_the_shared_storage_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = (
        "import json, sys; from pathlib import Path; job = json.loads(sys.stdin.readline()); "
        "seen = Path(job['storage'], job['witness']).read_text(); "
        "print(json.dumps({'nodes': [], 'problems': [seen]}), flush=True)"
    )
    with pytest.raises(ClusterError, match=r"1\. muralab"):
        find(monkeypatch, tmp_path, program)
    assert list(tmp_path.iterdir()) == []


def test_outside_recipes_travel_with_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab_x").mkdir()
    (tmp_path / "my_lab_x" / "wide.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    names = [Path(path).name for path in code_modules(["cnn", "my_lab_x.wide"])]
    assert names == ["muralab", "recipes", "my_lab_x"]
    (tmp_path / "my_lab_x" / "results.bin").write_bytes(bytes(5 * 2**20))
    with pytest.raises(ClusterError, match="Keep data and results out of the recipe's package"):
        code_modules(["my_lab_x.wide"])


def test_a_cluster_needs_a_storage_and_one_machine_none() -> None:
    assert machines_of(TuneConfig()) == ()
    with pytest.raises(SettingsError, match="ray_address=auto: give storage="):
        machines_of(TuneConfig(ray_address="auto"))


def test_nodes_are_listed_in_one_line() -> None:
    nodes = [Machine(name="a", cpus=1, gpus=0, memory_bytes=1), Machine(name="b", cpus=8, gpus=2, memory_bytes=1)]
    assert node_list(nodes) == "a (1 core), b (8 cores, 2 GPUs)"


@pytest.mark.parametrize(
    ("changes", "is_dry_run", "started"),
    [
        ({}, False, (True, True)),
        ({}, True, (False, True)),
        ({"ray_address": "auto", "storage": "/s"}, False, (False, True)),
        ({"storage": "/s"}, False, (True, True)),
        ({"gpus_per_trial": 0}, False, (True, False)),
    ],
)
def test_ray_is_started_early_where_it_will_be_needed(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], is_dry_run: bool, started: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(cluster, "EarlyRay", lambda *, is_wanted, with_gpus: (is_wanted, with_gpus))
    assert cluster.early_ray(replace(TuneConfig(), **changes), is_dry_run=is_dry_run) == started
