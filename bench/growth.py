"""Do time and memory grow linearly with the data, or faster?

    python -m bench.growth           (about four minutes on two cores; --full: up to 40,000 images and 512 trials)

Each job (index, split, audit, cache, input of one epoch, evaluation of stored predictions) runs on 1,000 and 10,000
small images, each time in a new process. Measured are its CPU time, the lowest of three, and the memory it adds. The
sweep is the command `tune` with 8 and 64 trials of two instant epochs, including MLflow and the report, from its first
epoch to its end. The exponent of growth is fitted to time over number; 1 is linear.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from bench.common import Options, Row, memory_mib, run
from bench.data import AUGMENT, build_index, write_tree
from bench.intervals import simulate
from muralab.data.audit.report import audit_images
from muralab.data.cache import open_cache
from muralab.data.loader import training_batches
from muralab.data.mura import read_index
from muralab.data.splits import split_index
from muralab.evaluation.intervals import metric_intervals

STEEPEST = 1.1
"""Within the timing noise of an exponent of 1."""
SIZE = 64
REPEATS = 3
TREE = "MURA-v1.1"
SPAN = """select (max(runs.end_time) - min(metrics.timestamp)) / 1000.0 from runs, metrics
          where metrics.key = 'train/epoch_seconds' and runs.end_time is not null"""
Cost = tuple[float, float]
"""CPU seconds and MiB."""


def job_index(folder: Path, n_images: int) -> object:
    """Read the lists of the tree."""
    table = read_index(folder / TREE, "wrist")
    assert len(table) == n_images
    return table


def job_split(folder: Path, n_images: int) -> object:
    """Split an index by patient."""
    return split_index(build_index(folder / TREE, n_images))


def job_audit(folder: Path, n_images: int) -> object:
    """Read, decode, hash and compare every file."""
    with tempfile.TemporaryDirectory() as results:
        return audit_images(build_index(folder / TREE, n_images), folder=Path(results), workers=2)


def job_cache(folder: Path, n_images: int) -> object:
    """Decode every image."""
    with tempfile.TemporaryDirectory() as results:
        return open_cache(build_index(folder / TREE, n_images), size=SIZE, folder=Path(results), workers=2)


def job_input(folder: Path, n_images: int) -> object:
    """Read one augmented epoch from the cache."""
    table = build_index(folder / TREE, n_images)
    cache = open_cache(table, size=SIZE, folder=folder / "cache", workers=2)
    return sum(len(batch.rows) for batch in training_batches(cache, table, AUGMENT, batch_size=32, seed=0, epoch=1))


def job_evaluation(folder: Path, n_images: int) -> object:
    """Compute calibration, metrics and intervals from a file of predictions."""

    from muralab.evaluation.calibration import fit_calibration
    from muralab.evaluation.metrics import METRICS

    path = folder / "predictions.csv"
    if not path.exists():
        simulate(n_images // 3, seed=1).head(n_images).to_csv(path, index=False)
    predictions = pd.read_csv(path)
    calibration = fit_calibration(predictions)
    return metric_intervals(
        predictions, level="study", metrics=list(METRICS), threshold=calibration.threshold, n_resamples=500
    )


JOBS: Mapping[str, Callable[[Path, int], object]] = {
    "index": job_index,
    "split": job_split,
    "audit": job_audit,
    "cache": job_cache,
    "an epoch's input": job_input,
    "evaluation": job_evaluation,
}


def cost(name: str, folder: Path, n_images: int, repeats: int) -> Cost:
    """Cost of a job in this process: the lowest CPU time of some repeats, and the memory it adds."""
    job, times = JOBS[name], []
    before = memory_mib("VmRSS")
    for _ in range(repeats):
        started = time.process_time()
        job(folder, n_images)
        times.append(time.process_time() - started)
    return min(times), memory_mib("VmHWM") - before


def costs(sizes: list[int], *, repeats: int = REPEATS) -> dict[str, list[Cost]]:
    """Cost of every job at every number of images, each in a new process."""
    found: dict[str, list[Cost]] = {name: [] for name in JOBS}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for n_images in sizes:
            with tempfile.TemporaryDirectory() as folder:
                write_tree(Path(folder) / TREE, n_images, side=SIZE)
                for name in JOBS:
                    found[name].append(pool.apply(cost, (name, Path(folder), n_images, repeats)))
    return found


def exponent(sizes: list[int], values: list[float]) -> float:
    """Exponent of the power law that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def job_row(name: str, sizes: list[int], found: list[Cost]) -> Row:
    """Growth of a job's time, with its memory as a note."""
    times, memory = [time_s for time_s, _ in found], [mib for _, mib in found]
    return Row(
        what=f"growth: {name}, {sizes[0]:,} to {sizes[-1]:,} images (exponent)",
        ours=" / ".join(f"{time_s:.2f} s" for time_s in times),
        theirs="linear: 1",
        ratio=exponent(sizes, times),
        at_most=STEEPEST,
        note="memory " + " / ".join(f"{mib:.0f} MiB" for mib in memory),
    )


def sweep_span_s(folder: Path, tree: Path, n_trials: int) -> float:
    """Seconds from the first epoch to the end of a sweep with instant trials."""
    database = folder / f"{n_trials}.db"
    command = [sys.executable, "-m", "muralab", "tune", "--data", str(tree), "--part", "wrist", "--weights", "none"]
    command += ["--recipes", "bench.sleeper", "--trials", str(n_trials), "--epochs", "1+1"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
        return float(store.execute(SPAN).fetchone()[0])


def sweep_row(numbers: list[int]) -> Row:
    """Growth of the sweep's own time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tree(folder / TREE, 120)
        span = functools.partial(sweep_span_s, folder, folder / TREE)
        spans = [span(number) for number in numbers]
    return Row(
        what=f"growth: a sweep of {numbers[0]} to {numbers[-1]} instant trials (exponent)",
        ours=" / ".join(f"{span_s:.1f} s" for span_s in spans),
        theirs="linear: 1",
        ratio=exponent(numbers, spans),
        at_most=STEEPEST,
        note=f"{(spans[-1] - spans[0]) / (numbers[-1] - numbers[0]):.2f} s per trial, two at a time",
    )


def measure(options: Options) -> list[Row]:
    """Measure all jobs, then the sweep."""
    sizes = [1_000, 10_000, *([40_000] if options.full else [])]
    found = costs(sizes)
    rows = [job_row(name, sizes, found[name]) for name in JOBS]
    return [*rows, sweep_row([8, 64, *([512] if options.full else [])])]


if __name__ == "__main__":
    run(measure, __doc__)
