"""The short form of `make chaos`: four sweeps at once, an undisturbed one and three that are disturbed in four ways."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.disturbances import DISTURBANCES, Disturbance, after_epochs, kill
from tests.chaos.outcome import check_outcome, disturb
from tests.chaos.sweeps import Sweep, end_everything, record


def kill_worker_and_raylet(sweep: Sweep, rng: random.Random) -> None:
    """Kill the trial's process, and the raylet once the trial has gone on."""
    kill("worker")(sweep, rng)
    after_epochs(2)(sweep, rng)
    kill("raylet/raylet")(sweep, rng)


BOTH = "a trial's process and the raylet killed"
CHOSEN = {
    **{one.name: one for one in DISTURBANCES if one.name in ("SIGKILL while training", "SIGINT while training")},
    BOTH: Disturbance(name=BOTH, at=after_epochs(1), do=kill_worker_and_raylet, recovers=True),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def disturbed_sweeps(
    tmp_path_factory: pytest.TempPathFactory, easy_tree: Path, empty_database: Path
) -> Iterator[dict[str, Future[Sweep]]]:
    """Name of the disturbance, or "calm" -> its sweep, which has ended."""
    sweeps = {name: Sweep(tmp_path_factory.mktemp("sweep"), easy_tree, registers=False) for name in [*CHOSEN, "calm"]}
    for sweep in sweeps.values():
        shutil.copy(empty_database, sweep.database)

    def run(name: str) -> Sweep:
        sweep = sweeps[name]
        if name == "calm":
            sweep.start()
            assert sweep.wait() == 0, sweep.output + sweep.err.read_text()
        else:
            disturb(sweep, CHOSEN[name], random.Random(name), end_wait_s=300)  # four sweeps share the machine
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


@pytest.mark.parametrize("name", CHOSEN)
def test_a_disturbed_sweep_ends_as_an_undisturbed_one(
    name: str, disturbed_sweeps: dict[str, Future[Sweep]], calm: dict[str, Any]
) -> None:
    check_outcome(disturbed_sweeps[name].result(), calm)


def test_dead_processes_are_started_again(disturbed_sweeps: dict[str, Future[Sweep]]) -> None:
    output = disturbed_sweeps[BOTH].result().output
    assert "died and was started again from its checkpoint" in output
    assert "Ray's process raylet died. It is started again" in output


def test_a_killed_command_leaves_runs_that_the_next_one_closes(disturbed_sweeps: dict[str, Future[Sweep]]) -> None:
    killed = disturbed_sweeps["SIGKILL while training"].result()
    assert "Closed 2 runs whose process had died." in killed.output
    assert "was killed. Resume it with:" not in killed.output  # it is being resumed
