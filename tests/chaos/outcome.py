"""A sweep is disturbed, resumed until it has ended, and compared with an undisturbed one."""

from __future__ import annotations

import random
from typing import Any

import psutil

from tests.chaos.disturbances import Disturbance
from tests.chaos.sweeps import END_WAIT_S, Sweep, record, shows_how_to_resume
from tests.fixtures.record import differences

MOST_RESUMES = 3


def disturb(sweep: Sweep, disturbance: Disturbance, rng: random.Random, *, end_wait_s: float = END_WAIT_S) -> None:
    """Start a sweep, disturb it, and resume it until it has ended; one that cannot go on ends within `end_wait_s`."""
    sweep.start(shell=disturbance.shell)
    disturbance.at(sweep, rng)
    disturbance.do(sweep, rng)
    code = sweep.wait(900 if disturbance.recovers else end_wait_s)
    if disturbance.recovers:
        assert code == 0, sweep.output
    for _ in range(MOST_RESUMES):
        if code == 0:
            break
        code = _resume(sweep, code)
    assert code == 0, sweep.output + sweep.err.read_text()


def check_outcome(sweep: Sweep, undisturbed: dict[str, Any]) -> None:
    """Nothing lost, nothing doubled, nothing running, no process and no file left."""
    found = differences(record(sweep), undisturbed)
    assert not found, "\n".join(found)
    left = sweep.processes()
    psutil.wait_procs(left, timeout=20)
    running = [process for process in left if process.is_running()]
    assert not running, f"processes are left: {running}"
    files = [*sweep.temporary(), *map(str, sweep.sweeps.glob("*"))]
    assert not files, f"files are left: {files}"


def _resume(sweep: Sweep, code: int) -> int:
    """Resume by the line that was printed; a sweep that was ended before it had a run starts again."""
    started = any(sweep.sweeps.glob("*/plan.json"))
    if started and code not in (-9, 137):
        assert shows_how_to_resume(sweep), sweep.output
    sweep.start(**({"resume": "latest"} if started else {}))
    return sweep.wait()
