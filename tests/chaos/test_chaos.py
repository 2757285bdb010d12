"""Forty disturbed sweeps: nothing lost, nothing doubled, nothing running, no process and no file left.

`make chaos` runs them in about an hour; SEED draws other moments.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.disturbances import DISTURBANCES, Disturbance
from tests.chaos.outcome import check_outcome, disturb
from tests.chaos.sweeps import Sweep

SEED = int(os.environ.get("SEED", "0"))
N_SWEEPS = 40

pytestmark = pytest.mark.chaos


def drawn() -> list[tuple[int, Disturbance]]:
    """Every disturbance at least once, the others at random."""
    rng = random.Random(SEED)
    chosen = [*DISTURBANCES, *rng.choices(DISTURBANCES, k=max(0, N_SWEEPS - len(DISTURBANCES)))]
    return list(enumerate(chosen[:N_SWEEPS]))


@pytest.mark.parametrize(("number", "disturbance"), drawn(), ids=lambda one: getattr(one, "name", str(one)))
def test_a_disturbed_sweep_ends_as_an_undisturbed_one(
    number: int, disturbance: Disturbance, build_sweep: Callable[..., Sweep], undisturbed: dict[str, Any]
) -> None:
    sweep = build_sweep(small_disk=disturbance.small_disk)
    disturb(sweep, disturbance, random.Random(f"{SEED} {number}"))
    check_outcome(sweep, undisturbed)


def test_two_resumes_at_once_are_one(build_sweep: Callable[[], Sweep], undisturbed: dict[str, Any]) -> None:
    sweep = build_sweep()
    sweep.start()
    sweep.wait_until(lambda: bool(sweep.checkpoints()))
    assert sweep.process is not None
    sweep.process.kill()
    sweep.wait()
    first = Sweep(sweep.folder, sweep.tree)
    sweep.start(resume="latest")
    first.start(resume="latest")
    codes = sorted([sweep.wait(), first.wait()])
    assert codes == [0, 2]
    assert (
        "this sweep is being run by process" in sweep.err.read_text()
        or "no interrupted `tune`" in sweep.err.read_text()
    )
    check_outcome(sweep, undisturbed)
