"""The files that start clusters fit their tools' own schemas, the pins and each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from jsonschema import Draft7Validator

from muralab.config.commands import TuneConfig
from muralab.config.options import options_of

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PINS = (ROOT / "requirements.txt").read_text()
CLUSTER = yaml.safe_load((DEPLOY / "ray" / "cluster.yaml").read_text())
JOB = yaml.safe_load((DEPLOY / "ray" / "rayjob.yaml").read_text())
BATCH = DEPLOY / "slurm" / "sweep.sbatch"


def groups() -> dict[str, Any]:
    cluster = JOB["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"], **{one["groupName"]: one for one in cluster["workerGroupSpecs"]}}


def test_ray_up_takes_the_cluster() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(CLUSTER)] == []


def test_nothing_ends_other_rays_of_the_user() -> None:
    for file in (DEPLOY / "ray" / "cluster.yaml", DEPLOY / "ray" / "rayjob.yaml", BATCH):
        lines = [line.partition("#")[0] for line in file.read_text().splitlines()]
        assert not [line for line in lines if re.search(r"ray (stop|symmetric-run)", line)]


def test_every_ray_starts_with_a_token() -> None:
    commands = [*CLUSTER["head_start_ray_commands"], *CLUSTER["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in commands)
    assert JOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN" in BATCH.read_text()


def test_a_token_is_readable_for_its_user_alone_from_the_start() -> None:
    files = [ROOT / "docs" / "cluster.md", DEPLOY / "ray" / "cluster.yaml"]
    lines = [line for file in files for line in file.read_text().splitlines() if "get-auth-token --generate" in line]
    assert [line for line in lines if "(umask 077; ray get-auth-token --generate)" not in line] == []
    assert len(lines) == len(files)


@pytest.mark.parametrize("name", ["head", "trials"])
def test_kubernetes_takes_the_pods(name: str) -> None:
    spec = groups()[name]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_the_job_runs_the_ray_of_the_requirements() -> None:
    assert f"ray[tune]=={JOB['spec']['rayClusterSpec']['rayVersion']}" in PINS


def test_only_the_head_knows_the_tracking_server() -> None:
    secrets = {
        name: {source["secretRef"]["name"] for source in group["template"]["spec"]["containers"][0]["envFrom"]}
        for name, group in groups().items()
    }
    assert secrets == {"head": {"mura-storage", "mura-mlflow"}, "trials": {"mura-storage"}}


@pytest.mark.parametrize("text", [JOB["spec"]["entrypoint"], BATCH.read_text()])
def test_the_options_of_the_commands_exist(text: str) -> None:
    command = re.search(r"^.*muralab tune (.*)$", text.replace("\n  ", " "), re.MULTILINE)
    assert command
    given = re.findall(r"--([a-z-]+)", command[1])
    assert "ray-address" in given
    assert {name.replace("-", "_") for name in given} <= set(options_of(TuneConfig))


def test_the_batch_script_can_be_read() -> None:
    subprocess.run(["bash", "-n", BATCH], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--exclude=SC2016", BATCH], check=True)
