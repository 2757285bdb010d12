"""What the run of a search shows while it runs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from muralab.console import TrialRow, TrialTable
from muralab.tune.live_progress import EVERY_S, LiveProgress
from tests.tune.recorder import Recorder


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> LiveProgress:
    """Of two trials, one of which has ended two of its four epochs."""
    rows = {name: TrialRow(name, [60.0] * 4) for name in ("cnn-00", "cnn-01")}
    table = TrialTable(rows, 1, "val_study_auroc", Console(file=io.StringIO()), clock)
    writer: Any = Recorder()
    table.started("cnn-00")
    for number in (1, 2):
        table.epoch("cnn-00", number, "full", 0.7 + number / 10, 60.0)
    return LiveProgress(writer, "parent", table, clock)


def logged(progress: LiveProgress) -> list[Any]:
    return progress.writer.all("log_epoch")  # type: ignore[attr-defined]


def test_progress_best_value_and_load_are_logged_by_the_second(progress: LiveProgress, clock: Clock) -> None:
    progress.update()
    clock.now += 20
    progress.update()
    assert [step for _, step, _ in logged(progress)] == [0, 20]
    metrics = logged(progress)[-1][2]
    names = ("trials_done", "epochs_done", "best_objective")
    assert [metrics[f"progress/{name}"] for name in names] == pytest.approx([0.0, 2.0, 0.9])
    assert metrics["progress/minutes_left"] > 1
    assert 0 <= metrics["system/system_memory_usage_percentage"] <= 100


def test_the_description_names_the_best_trial_and_what_runs(progress: LiveProgress) -> None:
    note = progress.note()
    assert note.startswith("**Running: 0 of 2 trials done**, about ")
    assert "Best so far on validation: `cnn-00`, val_study_auroc **0.900**." in note
    assert "Now: `cnn-00` (full, epoch 2 of 4)." in note


def test_the_store_is_written_to_now_and_then(progress: LiveProgress, clock: Clock) -> None:
    for seconds in (0.0, EVERY_S / 2, EVERY_S / 2, 1.0):
        clock.now += seconds
        progress.tick()
    assert len(logged(progress)) == 2
