"""Sweeps run as users run them, in processes of their own, on the easy tree with the small network."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from muralab.tracking import RunRecord, Store, open_store, read_children
from tests.fixtures.runs import find_runs

ROOT = Path(__file__).parents[2]
RECIPE = "tiny_lab.small_net"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where sweeps of one test file run: a store, a cache and the recipe's folder."""

    store: Store
    cache: Path
    lab: Path
    tree: Path
    experiment: str = "easy"

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command in a process group of its own, as a terminal starts it, from the checkout's root."""
        unset = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")
        environment = {key: value for key, value in os.environ.items() if key not in unset} | {
            "MLFLOW_TRACKING_URI": self.store.uri,
            "XDG_CACHE_HOME": str(self.cache),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "platform", ROOT, self.lab))),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_EXPERIMENT_NAME": self.experiment,
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.scratch),
        }
        self.scratch.mkdir(exist_ok=True)
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )

    def tune(self, **values: object) -> list[str]:
        """The words of `python -m muralab tune` on the easy tree, one trial at a time."""
        flags = {"data": self.tree, "recipes": RECIPE, "trials": 2, "max_concurrent": 1, **values}
        words = [word for key, value in flags.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        return [sys.executable, "-m", "muralab", "tune", *words]

    def project(self, **values: object) -> list[str]:
        """The words of `mlflow run`, likewise."""
        flags = {"data": self.tree, "recipes": RECIPE, "trials": 2, "max_concurrent": 1, **values}
        words = [word for key, value in flags.items() for word in ("-P", f"{key}={value}")]
        return [
            "mlflow",
            "run",
            ".",
            "-e",
            "tune",
            "--env-manager",
            "local",
            "--experiment-name",
            self.experiment,
            *words,
        ]

    @property
    def scratch(self) -> Path:
        """The temporary folder of its commands."""
        return self.cache.parent / "tmp"

    def temporary(self) -> list[str]:
        """What commands have left in it."""
        return sorted(path.name for path in self.scratch.iterdir() if path.name.startswith(("muralab-", "ray")))

    def n_epochs(self) -> int:
        """The last epoch that any trial has logged."""
        with sqlite3.connect(f"file:{self.store.sqlite_path}?mode=ro", uri=True, timeout=10) as database:
            row = database.execute("select max(step) from metrics where key = 'train/loss'").fetchone()
        return int(row[0] or 0)


def finish(process: subprocess.Popen[str], wait_s: float = 900) -> str:
    """What a process writes until it ends; the whole group is ended where it takes too long."""
    try:
        return process.communicate(timeout=wait_s)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str], wait_s: float = 600) -> None:
    deadline_s = time.monotonic() + wait_s
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline_s, "it takes too long"
        time.sleep(0.05)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A sweep that has ended."""

    bench: Bench
    code: int
    output: str
    runs: list[RunRecord]

    @property
    def parent(self) -> RunRecord:
        """Its own run."""
        return next(run for run in self.runs if run.kind == "tune")

    @property
    def trials(self) -> list[RunRecord]:
        """The trials, with their history."""
        return read_children(self.bench.store, self.parent.run_id, predictions=True)


def sweep(bench: Bench, command: list[str]) -> Swept:
    """Run a sweep to its end."""
    process = bench.start(*command)
    output = finish(process)
    return Swept(bench=bench, code=process.returncode, output=output, runs=find_runs(bench.store, bench.experiment))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, lab: Path, easy_tree: Path) -> Bench:
    """A local store of this file's own."""
    folder = tmp_path_factory.mktemp("bench")
    shutil.copy(empty_database, folder / "mlflow.db")
    store = open_store(f"sqlite:///{folder / 'mlflow.db'}")
    return Bench(store=store, cache=folder / "cache", lab=lab, tree=easy_tree)


@pytest.fixture(scope="module")
def remote_bench(bench: Bench, tracking_server: str) -> Bench:
    """The same with a tracking server."""
    return Bench(store=open_store(tracking_server), cache=bench.cache.parent / "remote", lab=bench.lab, tree=bench.tree)
