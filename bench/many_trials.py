"""How does a sweep grow with its trials: time, memory, the report, and a store that is far away?

    python -m bench.many_trials      (about three minutes; --full: 10,000 trials, and 1,000 with a slow store, an hour)

The command `tune` with instant trials (two epochs of a tiny network), two at a time, from its start to its end. Local:
MLflow in an SQLite file. Slow: a real `mlflow server` behind a proxy that adds 200 ms to each request; the requests are
counted there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.common import Options, Row, run
from bench.data import write_tree
from bench.measured_sweep import MeasuredSweep, run_sweep
from tests.cluster.nodes import free_port
from tests.fixtures.flaky_proxy import flaky_proxy

DELAY_S = 0.2
STEEPEST = 1.1
N_IMAGES = 120
LARGEST_REPORT_MIB = 50.0
START_S = 60.0


def measure_local(numbers: list[int]) -> dict[int, tuple[MeasuredSweep, float]]:
    """Number of trials -> the sweep, and the MiB of its report."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "MURA-v1.1"
        write_tree(tree, N_IMAGES)
        for number in numbers:
            folder = Path(name) / str(number)
            folder.mkdir()
            swept = run_sweep(folder, tree, f"sqlite:///{folder / 'mlflow.db'}", number)
            (report,) = folder.rglob("report.html")
            found[number] = swept, report.stat().st_size / 2**20
            print(describe(swept, number, found[number][1]), file=sys.stderr, flush=True)
    return found


def describe(swept: MeasuredSweep, number: int, report_mib: float) -> str:
    """The figures of one sweep in a line."""
    parts = np.linspace(1, number, 5).astype(int).tolist()
    pace = " / ".join(f"{swept.per_trial_s(a, b):.3f}" for a, b in itertools.pairwise(parts))
    used = "; ".join(
        f"{role} " + " / ".join(f"{swept.cpu_per_trial_s(role, a, b):.3f}" for a, b in itertools.pairwise(parts))
        for role in swept.peak_mib
    )
    memory = ", ".join(f"{name} {mib:.0f} MiB" for name, mib in swept.peak_mib.items())
    stages = [*swept.began.items(), ("end", swept.total_s)]
    spans = ", ".join(f"{name} {after - begin:.1f} s" for (name, begin), (_, after) in itertools.pairwise(stages))
    return (
        f"{number:,} trials: {pace} s per trial in each quarter of the search (CPU time: {used}); {spans}; "
        f"{swept.waited_s:.1f} s for the store after the last trial; peak {memory}; report {report_mib:.1f} MiB"
    )


def local_rows(found: dict[int, tuple[MeasuredSweep, float]]) -> list[Row]:
    """Growth of the search's time and of the report."""
    numbers, spans = list(found), [swept.search_s for swept, _ in found.values()]
    largest, (last, report_mib) = numbers[-1], list(found.values())[-1]
    early, late = last.per_trial_s(1, largest // 4), last.per_trial_s(largest - largest // 4, largest)
    return [
        Row(
            what=f"scale: seconds per trial in the last quarter of {largest:,} instant trials, over the first quarter",
            ours=f"{late:.3f} s",
            theirs=f"{early:.3f} s",
            ratio=late / early,
            at_most=1.5,
            note="the search took " + " / ".join(f"{s:.1f} s" for s in spans)
            + f" for {' / '.join(f'{n:,}' for n in numbers)} trials",
        ),
        Row(
            what=f"scale: report of {largest:,} trials",
            ours=f"{report_mib:.1f} MiB",
            theirs=f"limit {LARGEST_REPORT_MIB:.0f} MiB",
            ratio=report_mib / LARGEST_REPORT_MIB,
            at_most=1.0,
            note=describe(last, largest, report_mib),
        ),
    ]  # fmt: skip


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A real tracking server on a free port, with an SQLite file and its artifacts below a folder.

    Raises:
        RuntimeError: it did not answer in time.
    """
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes that nobody needs
    with (
        (folder / "server.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_until_ready(f"{address}/health", process)
            yield address
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer; `mlflow server` ended with {process.poll()}.")


def slow_row(number: int) -> Row:
    """A sweep whose store takes 200 ms longer for each request."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tree(folder / "MURA-v1.1", N_IMAGES)
        with mlflow_server(folder) as server, flaky_proxy(server, slow_s=DELAY_S) as proxy:
            swept = run_sweep(folder, folder / "MURA-v1.1", proxy.uri, number)
            requests = [(one.method, one.path.split("?")[0]) for one in proxy.seen]
        (report,) = folder.rglob("report.html")
        line = describe(swept, number, report.stat().st_size / 2**20)
    print(line, file=sys.stderr, flush=True)
    written = [path for method, path in requests if method != "GET" and "search" not in path]
    logging_s, training_s = swept.began["test"] - swept.ended[0], swept.ended[-1] - swept.ended[0]
    return Row(
        what=f"scale: seconds per instant trial of {number:,}, a store with {DELAY_S * 1000:.0f} ms per request",
        ours=f"{logging_s / number:.2f} s",
        theirs=f"the trials alone {training_s / number:.2f} s",
        ratio=logging_s / training_s,
        note=f"{len(requests):,} requests, {len(written):,} of them writes: {len(written) / number:.1f} per trial, "
        f"at most {len(written) / logging_s:.1f} per second; {line}",
    )


def measure(options: Options) -> list[Row]:
    """Measure sweeps of several sizes with a local store, then one with a slow store."""
    numbers = [100, 1_000, 10_000] if options.full else [30, 100]
    return [*local_rows(measure_local(numbers)), slow_row(1_000 if options.full else 20)]


if __name__ == "__main__":
    run(measure, __doc__)
