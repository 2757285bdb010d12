"""How much training time does tracking cost, with a local database and with a store that takes 200 ms per call?

    python -m bench.tracking         (about a minute; --full: two)

Training is simulated by a fixed number of matrix products per epoch: one second of CPU time, less than an epoch of a
real network takes, so the measured share is an upper bound. Rounds (one run with 8 epochs, from start to end) without
tracking, with a local store and with a slow one alternate; tracking includes a journal on disk. Two figures each: the
time that the caller waited plus the CPU time of the writer's threads, as a share of training; and the wall time of a
round over that of the neighboring round without tracking.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import Options, Row, ratios, run
from muralab.tracking import RunWriter, Store, open_store
from muralab.tracking.journal import Journal

METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc", "phase", "lr")
DELAY_S = 0.2
EPOCHS = 8
EPOCH_S = 1.0
SHARE_LIMIT = 0.01


class SlowStore:
    """A store on which every call takes 200 ms longer, as over a slow network."""

    is_remote = False
    sqlite_path = None

    def __init__(self, store: Store) -> None:
        self.uri = store.uri
        self.registry_uri, self.patience_s = "", 0.0
        self._client = store.impatient().client

    def impatient(self) -> SlowStore:
        """A client that tries once, as this one does."""
        return self

    @property
    def client(self) -> SlowStore:
        """The store itself, in place of the client."""
        return self

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            time.sleep(DELAY_S)
            return method(*args, **kwargs)

        return call


@dataclass(frozen=True)
class Round:
    """Times of one round, in seconds."""

    training: float
    """Wall time from the start of the first epoch to the end of the last, including logging."""
    waited: float = 0.0
    """Part of it that the caller spent in the writer's methods."""
    writing: float = 0.0
    """CPU time of the threads of writer and journal in the whole round."""


def calibrate() -> Callable[[], None]:
    """Build an epoch of fixed work that takes about `EPOCH_S`."""
    left = np.random.default_rng(0).random((192, 192), dtype=np.float32)
    start_s, n = time.thread_time(), 0
    while time.thread_time() - start_s < EPOCH_S:
        left @ left
        n += 1

    def epoch() -> None:
        for _ in range(n):
            left @ left

    return epoch


def run_plain(epoch: Callable[[], None]) -> Round:
    start_s = time.perf_counter()
    for _ in range(EPOCHS):
        epoch()
    return Round(time.perf_counter() - start_s)


def run_tracked(epoch: Callable[[], None], store: Any, folder: Path) -> Round:
    waited_s = 0.0
    journal = Journal.create(folder / "journals", store_uri=store.uri, command="bench")
    with RunWriter(store, journal=journal) as writer:
        clocks = [time.pthread_getcpuclockid(ident) for ident in (writer.thread_ident, journal.thread_ident)]
        before_s = sum(map(time.clock_gettime, clocks))
        start_s = time.perf_counter()
        trial = writer.start_run(kind="trial", name="bench")
        for step in range(1, EPOCHS + 1):
            epoch()
            called_s = time.perf_counter()
            writer.log_epoch(trial, step, dict.fromkeys(METRICS, 0.5))
            waited_s += time.perf_counter() - called_s
        training_s = time.perf_counter() - start_s
        writer.finish(trial)
        writer.flush()
        writing_s = sum(map(time.clock_gettime, clocks)) - before_s
    return Round(training_s, waited_s, writing_s)


def row_of(name: str, done: list[Round], plain: list[Round]) -> Row:
    """The share for one store, with the wall time as a note."""
    shares = [(one.waited + one.writing) / one.training for one in done]
    waited = statistics.median(one.waited / one.training for one in done)
    wall, (low, high) = ratios([one.training for one in done], [one.training for one in plain])
    return Row(
        what=f"tracking: share of training time, {name}",
        ours=f"{statistics.median(shares):.2%}",
        theirs=f"limit {SHARE_LIMIT:.0%}",
        ratio=statistics.median(shares),
        spread=(min(shares), max(shares)),
        at_most=SHARE_LIMIT,
        note=f"the caller waited {waited:.3%}; wall time over that without tracking {wall:.3f} "
        f"({low:.3f} to {high:.3f})",
    )


def measure(options: Options) -> list[Row]:
    """Measure rounds without tracking, with a local store and with a slow one, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'mlflow.db'}")
        stores = {"local sqlite": store, f"{DELAY_S * 1000:.0f} ms per call": SlowStore(store)}
        epoch = calibrate()
        run_tracked(epoch, store, Path(folder))  # pays for imports and first use
        plain: list[Round] = []
        tracked: dict[str, list[Round]] = {name: [] for name in stores}
        for _ in range(4 if options.full else 2):
            plain.append(run_plain(epoch))
            for name, one in stores.items():
                tracked[name].append(run_tracked(epoch, one, Path(folder)))
    return [row_of(name, done, plain) for name, done in tracked.items()]


if __name__ == "__main__":
    run(measure, __doc__)
