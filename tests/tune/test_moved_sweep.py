"""A sweep with a storage that is interrupted on one machine, resumed on another, interrupted, and taken back.

Machines are cache folders here: nothing but the storage and the tracking store is common to them.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass, replace

import pytest

from muralab.tracking import RunRecord
from muralab.tracking.tags import Tag
from tests.fixtures.runs import find_runs
from tests.tune.conftest import Bench, Swept, finish, sweep, wait_until

pytestmark = pytest.mark.long
OPTIONS = {"trials": 3, "epochs": "1+40", "pruning": "off", "objective": "val_accuracy", "recipes": "tiny_lab.idle_net"}
N_EPOCHS = 41


@dataclass(frozen=True, kw_only=True)
class Moves:
    """The sweep, and what its commands printed."""

    first: str
    second: str
    third: Swept
    by: dict[str, str]
    """Trial -> the machine on which it ended."""


def ended(bench: Bench) -> set[str]:
    """The trials that have ended."""
    runs = find_runs(bench.store, bench.experiment)
    return {run.tags[Tag.TRIAL] for run in runs if run.kind == "trial" and run.tags.get(Tag.ENDED) == "finished"}


def interrupt(process: subprocess.Popen[str]) -> str:
    os.killpg(process.pid, signal.SIGINT)
    return finish(process, 300)


def resume_words(output: str) -> dict[str, str]:
    """The options of the printed command, as a shell and make hand them on."""
    line, *_ = re.findall(r"^  make tune PART=wrist (ARGS=.*)$", output, re.MULTILINE)
    words = shlex.split(shlex.split(line)[0].removeprefix("ARGS="))
    return dict(word.split("=", 1) for word in words if word != "-P")


@pytest.fixture(scope="module")
def moves(bench: Bench) -> Moves:
    folder = bench.cache.parent
    (folder / "shared lab").mkdir()
    small = (bench.lab / "tiny_lab" / "small_net.py").read_text()
    idle = small.replace("lr=1e-2, trains", "lr=1e-9, trains").replace("lr=2e-2", "lr=1e-9")
    (bench.lab / "tiny_lab" / "idle_net.py").write_text(idle)  # its first trial learns nothing: a later one is better
    a, b = bench, replace(bench, cache=folder / "b")
    process = a.start(*a.tune(**OPTIONS, storage=folder / "shared lab"))
    wait_until(lambda: len(ended(a)) == 1, process)
    first = interrupt(process)
    by = dict.fromkeys(ended(a), "a")
    process = b.start(*b.tune(**resume_words(first)))
    wait_until(lambda: len(ended(b)) == 2, process)
    second = interrupt(process)
    by |= dict.fromkeys(ended(b) - by.keys(), "b")
    third = sweep(a, a.tune(resume=resume_words(first)["resume"]))
    by |= dict.fromkeys(ended(a) - by.keys(), "a")
    return Moves(first=first, second=second, third=third, by=by)


def test_each_machine_ends_a_trial_and_every_epoch_is_logged_once(moves: Moves) -> None:
    assert moves.third.code == 0, moves.third.output
    assert set(moves.by.values()) == {"a", "b"}, moves.by
    assert {run.status for run in moves.third.runs} == {"FINISHED"}
    assert len(moves.third.trials) == 3
    for trial in moves.third.trials:
        points = moves.third.bench.store.client.get_metric_history(trial.run_id, "train/loss")
        assert [point.step for point in points] == list(range(1, N_EPOCHS + 1))


def test_the_best_trial_is_tested_wherever_it_ended(moves: Moves) -> None:
    best = min(moves.third.trials, key=rank)
    assert moves.by[best.tags[Tag.TRIAL]] == "b"
    assert moves.third.parent.tags[Tag.WINNER] == best.tags[Tag.TRIAL]
    assert [run.name for run in moves.third.trials if "test" in run.predictions] == [best.name]
    assert "are missing" not in moves.third.output


def rank(run: RunRecord) -> tuple[float, str]:
    """The better one first; of tied trials the first one of the plan."""
    return -run.metrics["objective"], run.tags[Tag.TRIAL]


def test_nothing_of_it_is_left_in_the_storage(moves: Moves) -> None:
    shared = moves.third.bench.cache.parent / "shared lab"
    assert {path.name for path in shared.iterdir()} <= {"pixels", "sweeps"}
    assert [path for path in (shared / "sweeps").rglob("*") if path.is_file()] == []
