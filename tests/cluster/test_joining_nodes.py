"""A node that joins and cannot train: its trials go elsewhere, and none fails."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.nodes import TOKEN, RayNodes
from tests.fixtures.runs import find_runs
from tests.tune.conftest import Bench, finish, wait_until

pytestmark = pytest.mark.long
HEAD, UNFIT = "127.0.0.2", "127.0.0.6"


def test_a_node_that_joins_with_another_torch_fails_no_trial(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "site" / "torch-2.0.7.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.7\n")
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    own = replace(bench, experiment="joining")
    with RayNodes({}) as nodes:
        nodes.start(HEAD)
        options = {
            "trials": 4, "epochs": "1+40", "pruning": "off", "max_concurrent": "auto", "cpus_per_trial": 1,
            "ray_address": nodes.address, "storage": str(tmp_path / "shared"),
        }  # fmt: skip
        process = own.start(*own.tune(**options))
        wait_until(lambda: any((tmp_path / "shared").rglob("*-000001.json")), process)
        nodes.start(UNFIT, PYTHONPATH=str(tmp_path / "site"))
        output = finish(process, 600)
    assert process.returncode == 0, output
    found = re.findall(rf"{UNFIT}: torch 2\.0\.7 \(the command has", " ".join(output.split()))
    assert len(found) == 1, output
    assert {run.status for run in find_runs(own.store, "joining")} == {"FINISHED"}
