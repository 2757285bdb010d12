"""What processes of a cluster's node know of the tracking server: nothing, whatever its shell had."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import muralab
from tests.cluster.nodes import TOKEN, RayNodes
from tests.processes import environment

pytestmark = pytest.mark.long
PROGRAM = """
import json, sys
from pathlib import Path
from muralab.tune.ray_cluster import existing_ray

def read_environment():
    rows = Path("/proc/self/environ").read_text().split("\\0")
    return {key: value for key, _, value in (row.partition("=") for row in rows if row)}

with existing_ray(*json.loads(sys.argv[1])):
    import ray
    print(json.dumps(ray.get(ray.remote(read_environment).remote())))
"""


def test_trials_do_not_see_the_password_of_the_shell_that_started_their_node() -> None:
    secrets = {
        "MLFLOW_TRACKING_URI": "https://ann:hidden-0@mlflow.lab",
        "MLFLOW_TRACKING_PASSWORD": "hidden-1",
        "MLFLOW_TRACKING_TOKEN": "hidden-2",
        "PGPASSWORD": "hidden-3",
    }
    with RayNodes({"LAB": "of-the-node"}) as nodes:
        nodes.start("127.0.0.2", **secrets)
        setup = json.dumps([nodes.address, [muralab.__path__[0]]])
        command = [sys.executable, "-c", PROGRAM, setup]
        done = subprocess.run(
            command, env=environment(RAY_AUTH_TOKEN=TOKEN), capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["LAB"] == "of-the-node"
    assert {name: seen[name] for name in secrets} == dict.fromkeys(secrets, "")
    assert "hidden-" not in done.stdout
