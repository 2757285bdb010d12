"""The batch script run with stand-ins for Slurm's and Ray's programs: what its nodes know, and what it leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from muralab.tune.ray_handle import OF_THE_STORE

BATCH = Path(__file__).parents[1] / "deploy" / "slurm" / "sweep.sbatch"
PROGRAMS = {
    "scontrol": "printf '127.0.0.1\\ngpu2\\n'",
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "python": f'[[ $1 != -c ]] || exec {sys.executable} "$@"; env > command.env; until [[ -e worker.env ]]; do :; done',
    "ray": f'exec {sys.executable} ray.py "$@"',
}  # fmt: skip
RAY = """
import os, socket, sys, time
given = dict(word.partition("=")[::2] for word in sys.argv)
os.makedirs(given["--temp-dir"] + "/session", exist_ok=True)
role = "head" if "--head" in given else "worker"
held = socket.create_server(("127.0.0.1", int(given["--port"]))) if role == "head" else None
open(f"{role}.part", "w").write("\\n".join(f"{key}={value}" for key, value in os.environ.items()))
os.rename(f"{role}.part", f"{role}.env")
time.sleep(600)
"""


def job_id() -> int:
    """One whose head's port is free."""
    for number in range(os.getpid() % 10_000, 20_000):
        try:
            socket.create_server(("127.0.0.1", 20_000 + number)).close()
        except OSError:
            continue
        return number
    raise AssertionError("no port is free")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like a checkout, with the stand-ins among its programs."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "ray.py").write_text(RAY)
    for name, program in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{program}\n")
        (programs / name).chmod(0o755)
    return tmp_path


def test_nodes_of_a_job_get_no_password_and_leave_nothing_behind(folder: Path) -> None:
    number = job_id()
    secrets = {
        "MLFLOW_TRACKING_URI": "https://mlflow.lab",
        "MLFLOW_TRACKING_PASSWORD": "hidden",
        "PGPASSWORD": "hidden",
        **{f"{start}X": "hidden" for start in OF_THE_STORE},
    }
    job = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "x[1-2]"}
    own = os.environ | job | secrets | {"SLURM_JOB_NUM_NODES": "2", "AWS_SECRET_ACCESS_KEY": "of the storage"}
    done = subprocess.run(["bash", BATCH], env=own, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = {role: (folder / f"{role}.env").read_text() for role in ("head", "worker", "command")}
    assert {role: "hidden" in text or "mlflow.lab" in text for role, text in seen.items()} == {
        "head": False,
        "worker": False,
        "command": True,
    }
    assert all("AWS_SECRET_ACCESS_KEY=of the storage" in text for text in seen.values())
    assert not Path(f"/tmp/ray-{number}").exists()
