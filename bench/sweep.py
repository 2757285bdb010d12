"""How much time does a sweep take beyond its trials, and how long until it trains?

    python -m bench.sweep            (about five minutes on two cores)

Overhead: 16 trials of about 20 s, two at a time, each with a network that sleeps (bench/sleeper.py), so that a trial
takes the same time on any machine; the span from the first training step to the end of the last epoch, over half of the
total duration of all epochs. Start: the command `tune` with all recipes on the demo, from the start of its process to
its first training step (the time at which the first epoch is logged to MLflow, minus its duration), with images and
frozen features already cached; then it is interrupted.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import pandas as pd

from bench.common import Options, Row, run
from bench.search import CONCURRENT, Recorder, build_specs, search, write_small_split
from muralab.demo.dataset import default_folder, write_demo

N_TRIALS, TRIAL_S = 16, 20.0
MOST_OVERHEAD = 1.15
START_LIMIT_S = 30.0
GIVE_UP_S = 240.0
FIRST_EPOCH = "select timestamp / 1000.0 - value from metrics where key = 'train/epoch_seconds' order by timestamp"
EPOCHS, BATCH = 4, 16


def search_sleepers(n_trials: int, trial_s: float) -> Recorder:
    """Run trials of `trial_s` seconds, each with four epochs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = write_small_split(folder, 60)
        n_train = int((pd.read_csv(table)["set"] == "train").sum())
        wait_s = trial_s / EPOCHS / -(-n_train // BATCH)
        return search(build_specs("bench.sleeper", n_trials, table, folder, {"model.wait_s": wait_s}), folder)


def overhead(n_trials: int, trial_s: float) -> Row:
    """The span of a search over the time that its trials alone would take."""
    recorder = search_sleepers(n_trials, trial_s)
    span_s, ideal_s = recorder.last_end_s - recorder.first_step_s, recorder.training_s / CONCURRENT
    return Row(
        what=f"sweep: {n_trials} trials of {trial_s:.0f} s, {CONCURRENT} at a time",
        ours=f"{span_s:.1f} s",
        theirs=f"the trials alone {ideal_s:.1f} s",
        ratio=span_s / ideal_s,
        at_most=MOST_OVERHEAD,
    )


def first_step_s(cache: Path, database: Path) -> float:
    """Seconds from the start of the process of `tune` to its first training step."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    command = [sys.executable, "-m", "muralab", "tune", "--part", "wrist", "--weights", "none"]
    started = time.time()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and time.time() - started < GIVE_UP_S:
                time.sleep(0.5)
                with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
                    for (moment,) in store.execute(FIRST_EPOCH):
                        return float(moment) - started
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
    raise RuntimeError(f"`tune` logged no epoch within {GIVE_UP_S:.0f} s; its exit code is {process.returncode}.")


def start(rounds: int) -> Row:
    """The median of several starts, after a first one that fills the caches."""
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "muralab"
        cache.mkdir()
        demo = write_demo(default_folder()).parent
        (cache / demo.name).symlink_to(demo)
        times = [first_step_s(Path(name), Path(name) / f"{number}.db") for number in range(rounds + 1)]
    cold_s, warm = times[0], times[1:]
    return Row(
        what="start: `tune` to its first training step, caches warm",
        ours=f"{statistics.median(warm):.1f} s",
        theirs=f"limit {START_LIMIT_S:.0f} s",
        ratio=statistics.median(warm) / START_LIMIT_S,
        spread=(min(warm) / START_LIMIT_S, max(warm) / START_LIMIT_S),
        at_most=1.0,
        note=f"{cold_s:.1f} s with empty caches",
    )


def measure(options: Options) -> list[Row]:
    """Measure the start three times (with --full five), the overhead once."""
    return [start(5 if options.full else 3), overhead(N_TRIALS, TRIAL_S)]


if __name__ == "__main__":
    run(measure, __doc__)
