"""A team's sweep on three nodes that share only a bucket: one is killed, one is cut off for a while, a fourth joins.

MLflow's server has users, PostgreSQL and S3. The record is that of the same sweep on one machine: nothing is lost,
nothing doubled; one user registers the model, and another serves it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muralab.storage import Storage
from muralab.tracking import open_store
from muralab.tracking.tags import Tag
from tests.cluster.nodes import RayNodes
from tests.fixtures.record import record_of
from tests.fixtures.runs import find_runs
from tests.fixtures.team import TeamServer
from tests.processes import environment
from tests.team.conftest import become
from tests.tune.conftest import Bench, Swept, finish, sweep, wait_until

pytestmark = pytest.mark.long
STORAGE = "s3://lab/mura"
OPTIONS = {"trials": 8, "epochs": "2+50", "pruning": "off", "max_concurrent": "auto", "cpus_per_trial": 1}
CUT_OFF, LOST, JOINED = "127.0.0.3", "127.0.0.4", "127.0.0.5"
CUT_OFF_S = 100.0
"""Ray takes a node for lost after about a minute without an answer."""


@pytest.fixture(scope="module")
def ann(whole_team: TeamServer) -> Iterator[dict[str, str]]:
    """The user who sweeps; commands and clients of this process are hers."""
    with pytest.MonkeyPatch.context() as patch:
        user = whole_team.add_user("ann")
        become(user, patch)
        yield user


@pytest.fixture(scope="module")
def bench(bench: Bench, whole_team: TeamServer, ann: dict[str, str]) -> Bench:
    """Sweeps of a user of the team's server."""
    return replace(bench, store=open_store(whole_team.uri))


def on_cluster(nodes: RayNodes, **values: object) -> dict[str, object]:
    return {**OPTIONS, "ray_address": nodes.address, "storage": STORAGE, **values}


def n_epochs_on(bench: Bench, node: str) -> int:
    """The last epoch that a running trial of a node has logged; asked for in few requests, since trials are short."""
    client = bench.store.client
    experiment = client.get_experiment_by_name(bench.experiment)
    if experiment is None:
        return 0
    chosen = f"tags.`{Tag.NODE}` = '{node}' and attributes.status = 'RUNNING'"
    runs = client.search_runs([experiment.experiment_id], chosen)
    points = [point for run in runs for point in client.get_metric_history(run.info.run_id, "train/loss")]
    return max((point.step for point in points), default=0)


@pytest.fixture(scope="module")
def swept(bench: Bench, nodes: RayNodes) -> Swept:
    """The sweep on the cluster, with its disturbances."""
    process = bench.start(*bench.tune(**on_cluster(nodes)))
    try:
        wait_until(lambda: n_epochs_on(bench, LOST) >= 5, process)
        nodes.kill(LOST)
        nodes.start(JOINED)
        wait_until(lambda: n_epochs_on(bench, JOINED) >= 1, process)
        wait_until(lambda: n_epochs_on(bench, CUT_OFF) >= 3, process)
        nodes.cut_off(CUT_OFF)
        time.sleep(CUT_OFF_S)
        nodes.reconnect(CUT_OFF)
    except BaseException:
        process.kill()
        raise
    output = finish(process, 1500)
    return Swept(bench=bench, code=process.returncode, output=output, runs=find_runs(bench.store, bench.experiment))


def test_it_ends_well(swept: Swept) -> None:
    assert swept.code == 0, swept.output
    assert {run.status for run in swept.runs} == {"FINISHED"}


def test_the_output_names_the_nodes(swept: Swept) -> None:
    output = " ".join(swept.output.split())  # long lines are wrapped
    assert "on 127.0.0.2 (1 core), 127.0.0.3 (1 core), 127.0.0.4 (1 core)" in output
    for node in (LOST, CUT_OFF):
        assert re.search(rf"Note: The node {re.escape(node)} was lost: \S+ goes on elsewhere", output)
    assert re.search(r"finished on 127\.0\.0\.\d after 52 epochs", output)


@pytest.fixture(scope="module")
def alone(bench: Bench, swept: Swept) -> Swept:
    """The same sweep on one machine."""
    return sweep(own := replace(bench, experiment="alone", cache=bench.cache.parent / "alone"), own.tune(**OPTIONS))


def record(swept: Swept) -> dict[str, Any]:
    """What is recorded, without what the machines decide."""
    found = record_of(swept.bench.store, swept.runs)
    for facts in found.values():
        facts["params"].pop("max_concurrent", None)
        # The second sweep finds the champion of the first, and compares itself with it.
        facts["artifacts"] = [name for name in facts["artifacts"] if name != "judged_again.csv"]
    return found


def test_its_record_is_that_of_one_machine(swept: Swept, alone: Swept) -> None:
    assert alone.code == 0, alone.output
    ours, theirs = record(swept), record(alone)
    assert len(ours) == 9
    assert ours.keys() == theirs.keys()
    for name, facts in ours.items():
        for kind in facts:
            assert facts[kind] == theirs[name][kind], (name, kind)


def test_no_trial_ended_on_the_lost_node_and_the_new_one_was_used(swept: Swept) -> None:
    nodes = {run.tags.get(Tag.NODE) for run in swept.trials}
    assert None not in nodes
    assert LOST not in nodes
    assert JOINED in nodes


def test_another_user_serves_the_model(swept: Swept, whole_team: TeamServer, easy_tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "muralab", "predict", str(easy_tree / "valid"), "--out", str(tmp_path / "out.csv")]
    bob = environment(**whole_team.add_user("bob"), XDG_CACHE_HOME=str(tmp_path / "bob"))
    done = subprocess.run(command, env=bob, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done
    assert (tmp_path / "out.csv").read_text().count("\n") > 24


def test_the_password_stands_nowhere(swept: Swept, nodes: RayNodes, ann: dict[str, str]) -> None:
    password = ann["MLFLOW_TRACKING_PASSWORD"]
    assert password not in f"{swept.output} {[(run.params, run.tags) for run in swept.runs]}"
    files = [path for path in [*nodes.folder.rglob("*"), *swept.bench.cache.rglob("*")] if path.is_file()]
    assert files
    assert [path for path in files if password.encode() in path.read_bytes()] == []


def files_below(storage: Storage, folder: str) -> list[str]:
    """All files of a folder; a server of S3 may show folders that have become empty."""
    below = [f"{folder}/{name}".strip("/") for name in storage.folders(folder)]
    return [f"{folder}/{name}" for name in storage.names(folder)] + [
        file for inner in below for file in files_below(storage, inner)
    ]


def test_only_squares_are_left_in_the_bucket(swept: Swept) -> None:
    left = files_below(Storage(STORAGE), "")
    assert left
    assert [file for file in left if not file.startswith("pixels/")] == []


def test_the_cluster_is_left_as_it_was(swept: Swept, nodes: RayNodes) -> None:
    assert all(process.poll() is None for address, process in nodes.processes.items() if address != CUT_OFF)
    assert not [path for path in nodes.folder.glob("127.0.0.[25]/tmp/muralab-*") if (path / "trials").exists()]


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"RAY_AUTH_TOKEN": "wrong"}, {}, "the cluster refuses this machine's token"),
        ({"RAY_AUTH_TOKEN": "", "HOME": "/nonexistent"}, {}, "the cluster asks for a token, and this machine has none"),
        ({}, {"storage": "s3://typo/x"}, "there is no bucket typo"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {}, "the environment must hold valid keys"),
        ({}, {"ray_address": "127.0.0.2:1"}, "nothing answers there"),
        ({}, {"cpus_per_trial": 2}, "the largest node has 1"),
    ],
)
def test_what_is_wrong_is_said_before_a_run_starts(
    bench: Bench, nodes: RayNodes, swept: Swept, monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str], changes: dict[str, object], message: str,
) -> None:  # fmt: skip
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    refused = replace(bench, experiment="refused")
    process = refused.start(*refused.tune(**on_cluster(nodes, **changes)))
    output = finish(process, 300)
    assert process.returncode == 2, output
    assert message in output
    assert "wrong" not in output.replace("What is wrong", "")
