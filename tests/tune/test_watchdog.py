"""A trial that makes no step for long is found; a slow one, a suspended machine and an old file are not mistaken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from muralab import heartbeat
from muralab.heartbeat import HEARTBEAT
from muralab.trial import TrialSpec
from muralab.tune.watchdog import LEAST_S, Watchdog


class Stand:
    """A trial that has beaten once, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.now, self.file = 0.0, folder / HEARTBEAT
        spec = TrialSpec(name="a", recipe="cnn", table="", cache_folder="", folder=str(folder))
        self.watchdog = Watchdog([spec], {"a": 2.0}, clock=lambda: self.now)
        self.watchdog.started("a")

    def beat(self, at: float) -> None:
        self.file.write_text("4711")
        os.utime(self.file, (at, at))
        self.watchdog.hanging()

    def hanging_after(self, seconds: float) -> list[int]:
        self.now += seconds
        return self.watchdog.hanging()


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_a_trial_without_a_step_is_found_once(stand: Stand) -> None:
    stand.now = 10
    stand.beat(1)
    assert stand.hanging_after(LEAST_S) == []
    assert stand.hanging_after(10) == [4711]
    assert stand.hanging_after(10) == []
    assert stand.watchdog.reason("a").startswith("It made no step for 5 minutes (an epoch takes 2 s)")


def test_steps_keep_a_trial_alive_however_long_its_epoch_takes(stand: Stand) -> None:
    for number in range(1, 30):
        stand.now += LEAST_S / 2
        stand.beat(number)
    assert stand.hanging_after(LEAST_S / 2) == []


def test_a_trial_with_long_epochs_gets_more_time(stand: Stand) -> None:
    stand.watchdog.epoch("a", 100.0)
    stand.now = 10
    stand.beat(1)
    assert stand.hanging_after(900) == []
    assert stand.hanging_after(101) == [4711]


def test_the_file_of_an_earlier_process_is_no_sign(stand: Stand) -> None:
    stand.file.write_text("1")
    stand.watchdog.started("a")
    assert stand.hanging_after(10 * LEAST_S) == []


def test_a_trial_that_has_ended_is_not_watched(stand: Stand) -> None:
    stand.now = 10
    stand.beat(1)
    stand.watchdog.stopped("a")
    assert stand.hanging_after(10 * LEAST_S) == []


def test_beats_are_written_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_file", None)
    heartbeat.beat("full 1/2", 8, 16)
    heartbeat.start_heartbeat(tmp_path / "trial" / HEARTBEAT)
    process, first = heartbeat.read_heartbeat(tmp_path / "trial" / HEARTBEAT) or (0, 0.0)
    os.utime(tmp_path / "trial" / HEARTBEAT, (1, 1))
    heartbeat.beat("full 1/2", 8, 16)
    assert (process, heartbeat.read_heartbeat(tmp_path / "trial" / HEARTBEAT)) == (os.getpid(), (os.getpid(), 1.0))
    monkeypatch.setattr(heartbeat, "_written_s", heartbeat._written_s - 2)
    heartbeat.beat("full 1/2", 8, 16)
    assert (heartbeat.read_heartbeat(tmp_path / "trial" / HEARTBEAT) or (0, 0.0))[1] >= first - 1
