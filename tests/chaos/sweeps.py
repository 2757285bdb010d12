"""Sweeps that are disturbed, and what must be the same of them as of one that is not.

A sweep here is the recipe `cnn`, 2 trials, 1+2 epochs, 32 px, one trial at a time on a CPU.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from muralab.tracking import Store, open_store, read_children, read_run
from muralab.tracking.runs import search_runs
from tests.fixtures.record import digits
from tests.processes import ROOT, environment

RECIPE = "chaos_lab.cnn"
MODULE = '''"""The custom CNN, registered."""

from dataclasses import replace

from recipes.cnn import RECIPE as CNN

# As many steps as it takes to learn the easy tree: a model that does not beat chance is not registered.
RECIPE = replace(CNN, registers={registers}, batch_size=4)
'''
MARK = "MURALAB_CHAOS"
"""Environment variable by which every process of a sweep is found."""
TIMED = ("progress/", "system/", "train/epoch_seconds")
COUNTED = "muralab.test_looks."
"""What the tags of a registered model begin with that count the evaluations on a test set."""
END_WAIT_S = 60.0
"""A sweep that cannot go on ends within this."""


@dataclass
class Sweep:
    """A sweep in a folder of its own: store, cache, temporary folder, output."""

    folder: Path
    tree: Path
    registers: bool = True
    """Whether its model is exported and registered, which takes a third of its time."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        for name in ("cache", "tmp", "lab/chaos_lab"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "lab" / "chaos_lab" / "__init__.py").touch()
        (self.folder / "lab" / "chaos_lab" / "cnn.py").write_text(MODULE.format(registers=self.registers))

    def start(self, *, shell: str = "", **values: object) -> None:
        """Start `tune`, in a process group of its own; `shell` is appended to the command line."""
        flags = {
            "data": self.tree, "recipes": RECIPE, "trials": 2, "epochs": "1+2", "image_size": 32, "max_concurrent": 1,
            "pruning": "on", "precision": "float32", **values,
        }  # fmt: skip
        words = [word for key, value in flags.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        command = " ".join([sys.executable, "-m", "muralab", "tune", *words])
        unset = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")
        kept = {key: value for key, value in environment().items() if key not in unset}
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self.process = subprocess.Popen(
                ["bash", "-c", f"{'' if shell else 'exec '}{command} {shell}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                start_new_session=True,
                env=kept
                | {
                    "MLFLOW_TRACKING_URI": f"sqlite:///{self.database}",
                    "XDG_CACHE_HOME": str(self.folder / "cache"),
                    "TMPDIR": str(self.folder / "tmp"),
                    "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "platform", ROOT, self.folder / "lab"))),
                    "OMP_NUM_THREADS": "1",
                    MARK: self.mark,
                },
            )

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def err(self) -> Path:
        return self.folder / "err"

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return self.out.read_text(errors="replace") if self.out.exists() else ""

    def wait(self, wait_s: float = 900.0) -> int:
        """The exit code of the running command."""
        assert self.process is not None
        return self.process.wait(wait_s)

    def wait_until(self, reached: Callable[[], bool], wait_s: float = 600.0) -> bool:
        """Wait for something; False if the command has ended before."""
        assert self.process is not None
        deadline_s = time.monotonic() + wait_s
        while not reached():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline_s, f"it takes too long: {self.output}"
            time.sleep(0.02)
        return True

    # What is there

    @property
    def store(self) -> Store:
        return open_store(f"sqlite:///{self.database}")

    @property
    def sweeps(self) -> Path:
        return self.folder / "cache" / "muralab" / "sweeps"

    def checkpoints(self) -> list[Path]:
        return sorted(self.sweeps.glob("*/trials/*/last.safetensors")) or sorted(self.sweeps.rglob("last.safetensors"))

    def written(self) -> set[tuple[Path, int]]:
        """The checkpoints there are, with their times: one per epoch."""
        found = set()
        for path in self.checkpoints():
            with contextlib.suppress(OSError):
                found.add((path, path.stat().st_mtime_ns))
        return found

    def processes(self) -> list[psutil.Process]:
        """Every live process of this sweep."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def named(self, part: str) -> list[psutil.Process]:
        """Processes whose command line or title contains a text."""
        found = []
        for process in self.processes():
            try:
                if part in " ".join([process.name(), *process.cmdline()]):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def worker(self) -> list[psutil.Process]:
        """The process that runs a trial."""
        return self.named("ImplicitFunc") or self.named("ray::")

    def temporary(self) -> list[str]:
        """What is left in the temporary folder."""
        return sorted(path.name for path in (self.folder / "tmp").iterdir())


def record(sweep: Sweep) -> dict[str, Any]:
    """What must not depend on disturbances: trials, their ends, every metric at every step, versions, statuses."""
    store = sweep.store
    runs = [read_run(store, run.info.run_id) for run in search_runs(store, None, "")]
    runs = [run for run in runs if run.kind in ("tune", "trial")]
    (parent,) = [run.run_id for run in runs if run.kind == "tune"]
    trials = read_children(store, parent, predictions=True)
    versions = store.client.search_model_versions("name = 'mura-wrist'")
    models = store.client.search_registered_models("name = 'mura-wrist'")
    return {
        "trials": {run.tags["muralab.trial"]: _trial(store, run) for run in trials},
        "n_trials": len(trials),
        "parent": {key: points for key, points in _metrics(store, parent).items() if key.endswith("test_study_auroc")},
        "parent inputs": _inputs(store, parent),
        "winner": read_run(store, parent).tags.get("muralab.winner"),
        "versions": {version.version: (version.status, _own_tags(version)) for version in versions},
        "aliases": {alias: version for model in models for alias, version in model.aliases.items()},
        "evaluations": {key: value for model in models for key, value in model.tags.items() if COUNTED in key},
        "models": [str(model.status) for model in store.client.search_logged_models(_experiments(store))],
        "statuses": sorted(run.status for run in runs),
    }


def _own_tags(version: Any) -> dict[str, str]:
    """Of a version, without the key of coded names, which every cache has of its own."""
    return {key: value for key, value in version.tags.items() if key != "muralab.names"}


def _experiments(store: Store) -> list[str]:
    return [one.experiment_id for one in store.client.search_experiments()]


def _trial(store: Store, run: Any) -> dict[str, Any]:
    tags = ("muralab.ended", "muralab.kept_phase", "muralab.best_of_recipe")
    return {
        "tags": {tag: run.tags.get(tag) for tag in tags},
        "metrics": _metrics(store, run.run_id),
        "params": {key: value for key, value in run.params.items() if key != "resolved.threads"},
        "inputs": _inputs(store, run.run_id),
        "predictions": {name: run.predictions[name]["logit"].tolist() for name in ("validation",)},
        "artifacts": sorted(one.path for one in store.client.list_artifacts(run.run_id)),
    }


def _metrics(store: Store, run_id: str) -> dict[str, list[tuple[int, str]]]:
    keys = [key for key in store.client.get_run(run_id).data.metrics if not key.startswith(TIMED)]
    return {
        key: sorted((point.step, digits(point.value)) for point in store.client.get_metric_history(run_id, key))
        for key in keys
    }


def _inputs(store: Store, run_id: str) -> list[tuple[str, str]]:
    return sorted((one.dataset.name, one.dataset.digest) for one in store.client.get_run(run_id).inputs.dataset_inputs)


def resume_line(sweep: Sweep) -> str:
    """The last line that the command printed."""
    lines = [line for line in sweep.output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def shows_how_to_resume(sweep: Sweep) -> bool:
    return re.fullmatch(r"  make tune PART=wrist ARGS='-P resume=\w+'", resume_line(sweep)) is not None


def end_everything(sweep: Sweep) -> None:
    """Kill what a failed test left; only processes of this sweep."""
    for process in sweep.processes():
        with_suppressed_kill(process)


def with_suppressed_kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.Error:
        return


def remove(sweep: Sweep) -> None:
    """Remove the files of a sweep that went well."""
    shutil.rmtree(sweep.folder, ignore_errors=True)
