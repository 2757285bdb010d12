"""The short form of `make chaos`: an undisturbed and four disturbed sweeps at once."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.disturbances import DISTURBANCES
from tests.chaos.outcome import check_outcome, disturb
from tests.chaos.sweeps import Sweep, end_everything, record

NAMES = ["SIGKILL while training", "SIGINT while training", "a trial's process killed", "raylet killed"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def disturbed_sweeps(
    tmp_path_factory: pytest.TempPathFactory, easy_tree: Path, empty_database: Path
) -> Iterator[dict[str, Future[Sweep]]]:
    """Name of the disturbance, or "calm" -> its sweep, which has ended."""
    known = {one.name: one for one in DISTURBANCES}
    sweeps = {name: Sweep(tmp_path_factory.mktemp("sweep"), easy_tree, registers=False) for name in [*NAMES, "calm"]}
    for sweep in sweeps.values():
        shutil.copy(empty_database, sweep.database)

    def run(name: str) -> Sweep:
        sweep = sweeps[name]
        if name == "calm":
            sweep.start()
            assert sweep.wait() == 0, sweep.output + sweep.err.read_text()
        else:
            disturb(sweep, known[name], random.Random(name), end_wait_s=300)  # five sweeps share the machine
        return sweep

    try:
        with ThreadPoolExecutor(len(sweeps)) as threads:
            futures = {name: threads.submit(run, name) for name in sweeps}
        yield futures
    finally:
        for sweep in sweeps.values():
            end_everything(sweep)


@pytest.fixture(scope="module")
def calm(disturbed_sweeps: dict[str, Future[Sweep]]) -> dict[str, Any]:
    return record(disturbed_sweeps["calm"].result())


@pytest.mark.parametrize("name", NAMES)
def test_a_disturbed_sweep_ends_as_an_undisturbed_one(
    name: str, disturbed_sweeps: dict[str, Future[Sweep]], calm: dict[str, Any]
) -> None:
    check_outcome(disturbed_sweeps[name].result(), calm)


def test_a_dead_process_is_started_again(disturbed_sweeps: dict[str, Future[Sweep]]) -> None:
    worker = disturbed_sweeps["a trial's process killed"].result()
    assert "died and was started again from its checkpoint" in worker.output
    raylet = disturbed_sweeps["raylet killed"].result()
    assert "Ray's process raylet died. It is started again" in raylet.output


def test_a_killed_command_leaves_runs_that_the_next_one_closes(disturbed_sweeps: dict[str, Future[Sweep]]) -> None:
    killed = disturbed_sweeps["SIGKILL while training"].result()
    assert "Closed 2 runs whose process had died." in killed.output
    assert "was killed. Resume it with:" not in killed.output  # it is being resumed
