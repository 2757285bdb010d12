"""A sweep run as a command, measured from outside: when each stage ended, and the memory of its processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.common import memory_mib

ROOT = Path(__file__).parents[1]
LOOK_EVERY_S = 0.5
ENDED = re.compile(r"^\[(\d+)/\d+\] ")
STAGES = {
    "search": "Ready after",
    "test": "Evaluating the best trial",
    "results": "Test set of",
    "registration": "Exporting, checking and registering",
}
"""Stage -> what the line that begins it begins with."""


@dataclass(kw_only=True)
class MeasuredSweep:
    """A sweep that has ended; times are seconds since the command was started."""

    ended: list[float] = field(default_factory=list)
    """When each trial had ended, in the order of their ends."""
    began: dict[str, float] = field(default_factory=dict)
    """When each stage began; a stage that was not reached has none."""
    total_s: float = 0.0
    peak_mib: dict[str, float] = field(default_factory=dict)
    """Largest resident memory: of the `command`, of `Ray Tune` (the process that runs it) and of Ray's `gcs_server`."""
    cpu_s: list[dict[str, float]] = field(default_factory=list)
    """At the end of each trial: CPU time so far of the same processes, in seconds."""

    def per_trial_s(self, first: int, last: int) -> float:
        """Seconds per trial between the ends of two trials, counted from 1."""
        return (self.ended[last - 1] - self.ended[first - 1]) / (last - first)

    def cpu_per_trial_s(self, role: str, first: int, last: int) -> float:
        """The same in CPU time of one process, which a busy machine changes little."""
        before, after = self.cpu_s[first - 1], self.cpu_s[last - 1]
        return (after.get(role, 0.0) - before.get(role, 0.0)) / (last - first)

    @property
    def search_s(self) -> float:
        """From the start of Ray to the end of the last trial."""
        return self.ended[-1] - self.began["search"]

    @property
    def waited_s(self) -> float:
        """From the end of the last trial until the store held everything that was logged by then."""
        return self.began["test"] - self.ended[-1]


def run_sweep(folder: Path, tree: Path, store: str, n_trials: int, *options: str, **environment: str) -> MeasuredSweep:
    """Run `tune` with the sleeping recipe on a tree.

    Args:
        folder: for the cache; artifacts lie there as well where the store is a local database.
        tree: of images.
        store: address of MLflow's store.
        n_trials: how many.
        *options: further ones, such as `--set model.wait_s=0.1`; two epochs unless they say otherwise.
        **environment: further variables.

    Raises:
        RuntimeError: the command failed; holds the end of its output.
    """
    command = [sys.executable, "-m", "muralab", "tune", "--data", str(tree), "--part", "wrist", "--weights", "none"]
    command += ["--recipes", "bench.sleeper", "--trials", str(n_trials), *options]
    command += [] if "--epochs" in options else ["--epochs", "1+1"]
    own = {
        "MLFLOW_TRACKING_URI": store,
        "XDG_CACHE_HOME": str(folder),
        "PYTHONUNBUFFERED": "1",
    }
    paths = {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    found = MeasuredSweep()
    started = time.monotonic()
    with subprocess.Popen(
        command,
        env={**os.environ, **own, **paths, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    ) as process:
        watch = _Watch(process, found.peak_mib)
        watch.start()
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            _note(found, line, time.monotonic() - started)
            if len(found.cpu_s) < len(found.ended):
                found.cpu_s.append(watch.cpu_s())
            lines.append(line)
    found.total_s = time.monotonic() - started
    if process.returncode or len(found.ended) != n_trials:
        raise RuntimeError(f"`tune` ended with {process.returncode} after {len(found.ended)} trials: {lines[-40:]}")
    return found


def _note(found: MeasuredSweep, line: str, at_s: float) -> None:
    if ENDED.match(line):
        found.ended.append(at_s)
    for stage, beginning in STAGES.items():
        if line.startswith(beginning):
            found.began[stage] = at_s


class _Watch(threading.Thread):
    """Follows the processes of a command as long as it lives."""

    def __init__(self, process: subprocess.Popen[str], peaks: dict[str, float]) -> None:
        super().__init__(daemon=True)
        self.process, self.peaks = process, peaks
        self.roles: Mapping[psutil.Process, str] = {}

    def run(self) -> None:
        """Keep the peaks of memory, which the kernel counts."""
        parent = psutil.Process(self.process.pid)
        while self.process.poll() is None:
            with suppress(psutil.Error):
                below = {child: role for child in parent.children(recursive=True) if (role := _role(child))}
                self.roles = {parent: "command", **below}
            for one, role in self.roles.items():
                with suppress(OSError, StopIteration):  # it has ended
                    self.peaks[role] = max(self.peaks.get(role, 0.0), memory_mib("VmHWM", one.pid))
            time.sleep(LOOK_EVERY_S)

    def cpu_s(self) -> dict[str, float]:
        """CPU time of each process so far."""
        found: dict[str, float] = {}
        for one, role in self.roles.items():
            with suppress(psutil.Error):
                times = one.cpu_times()
                found[role] = times.user + times.system
        return found


def _role(process: psutil.Process) -> str:
    """What a process below the command is; empty for those that are not watched."""
    with suppress(psutil.Error):
        if any("muralab.tune.ray_process" in word for word in process.cmdline()):
            return "Ray Tune"
        if process.name() == "gcs_server":
            return "gcs_server"
    return ""
