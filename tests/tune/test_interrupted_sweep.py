"""A sweep of `mlflow run` that is interrupted and resumed.

No run stays open, no epoch is lost or doubled, no process and no temporary file is left.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass

import psutil
import pytest

from muralab.tracking import RunRecord
from tests.fixtures.runs import find_runs
from tests.tune.conftest import RECIPE, Bench, Swept, finish, sweep, wait_until

pytestmark = pytest.mark.slow
EPOCHS = "2+100"
N_EPOCHS = 102


@dataclass(frozen=True)
class Stage:
    """What a process left behind."""

    code: int
    output: str
    runs: list[RunRecord]
    alive: list[psutil.Process]
    """Processes that it started and that did not end."""
    temporary: list[str]


@pytest.fixture(scope="module")
def interrupted(bench: Bench) -> Stage:
    process = bench.start(*bench.project(trials=1, epochs=EPOCHS))
    wait_until(lambda: bench.n_epochs() >= 5, process)
    tree = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process, 300)
    _, alive = psutil.wait_procs(tree, timeout=30)
    return Stage(process.returncode, output, find_runs(bench.store, bench.experiment), alive, bench.temporary())


@pytest.fixture(scope="module")
def run_id(interrupted: Stage) -> str:
    match = re.search(r"^  (make tune .*resume=(\w+)\S*)$", interrupted.output, re.MULTILINE)
    assert match, interrupted.output
    return match[2]


@pytest.fixture(scope="module")
def resumed(bench: Bench, run_id: str) -> Swept:
    return sweep(bench, bench.project(resume=run_id))


def test_an_interrupt_leaves_nothing_running(interrupted: Stage) -> None:
    assert {run.kind for run in interrupted.runs} == {"tune", "trial"}
    assert {run.status for run in interrupted.runs} <= {"KILLED", "FAILED"}
    assert interrupted.code != 0


def test_an_interrupt_shows_how_to_resume_and_no_traceback(interrupted: Stage, run_id: str) -> None:
    assert run_id == next(run.run_id for run in interrupted.runs if run.kind == "tune")
    assert "Interrupted. Resume with:" in interrupted.output
    assert "Traceback" not in interrupted.output


def test_no_process_and_no_temporary_file_is_left(interrupted: Stage) -> None:
    assert interrupted.alive == []
    assert interrupted.temporary == []


def test_a_resumed_sweep_ends_under_its_old_parent(resumed: Swept, run_id: str) -> None:
    assert resumed.code == 0, resumed.output
    assert resumed.parent.run_id == run_id
    assert {run.status for run in resumed.runs} == {"FINISHED"}
    assert [run.tags["muralab.trial"] for run in resumed.trials] == [f"{RECIPE}-00"]


def test_the_run_of_the_command_that_resumes_links_to_the_sweep(resumed: Swept, run_id: str) -> None:
    link, *others = [run for run in resumed.runs if run.kind not in ("tune", "trial")]
    assert others == []
    assert (link.name, link.status, link.metrics) == ("tune, resumed", "FINISHED", {})
    assert run_id in link.tags["mlflow.note.content"]


def test_every_epoch_is_logged_once(resumed: Swept) -> None:
    (trial,) = resumed.trials
    for name in ("train/loss", "val/study_auroc", "train/phase", "objective/best"):
        points = resumed.bench.store.client.get_metric_history(trial.run_id, name)
        assert [point.step for point in points] == list(range(1, N_EPOCHS + 1))


def test_a_finished_sweep_is_not_resumed(resumed: Swept, bench: Bench, run_id: str) -> None:
    again = sweep(bench, bench.tune(resume=run_id))
    assert again.code == 2
    assert f"resume={run_id}: nothing of this sweep is left" in again.output
