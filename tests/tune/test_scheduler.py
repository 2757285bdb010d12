"""Pruning as Tune asks for it: within a recipe, in the full phase, also after an interruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from muralab.tune.scheduler import Past, build_scheduler

OURS, OTHER = "tiny_lab.small_net", "cnn"
GOOD, POOR, BEST = [0.8] * 9, [0.2] * 9, [0.9] * 9
ENOUGH = 4
"""Trials after which a poor one is stopped."""


class Search:
    """Tune's side: hands the scheduler what trials report."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.n_trials = scheduler, 0

    def stopped_at(self, objectives: Sequence[float], *, recipe: str = OURS, upper: Sequence[float] = ()) -> int | None:
        """The epoch of the full phase after which a new trial is stopped; None where it may go on to its end."""
        self.n_trials += 1
        spec = {"recipe": recipe, "name": f"t{self.n_trials}"}
        trial = SimpleNamespace(trial_id=f"id{self.n_trials}", config={"spec": spec})
        self.scheduler.on_trial_add(None, trial)
        clock = [(0, objective) for objective in upper] + list(enumerate(objectives, start=1))
        for epoch, objective in clock:
            decision = self.scheduler.on_trial_result(None, trial, {"full_epoch": epoch, "objective": objective})
            if decision == "STOP":
                return epoch
        return None


@pytest.fixture
def search() -> Any:
    """A function of past trials -> a search of two recipes with nine epochs in their full phase."""

    def build(past: Mapping[str, Past] | None = None) -> Search:
        return Search(build_scheduler(dict.fromkeys((OURS, OTHER), 9), past or {}))

    return build


def test_the_worst_is_stopped_and_the_best_goes_on(search: Any) -> None:
    found = search()
    assert [found.stopped_at(GOOD) for _ in range(ENOUGH)] == [None] * ENOUGH
    assert found.stopped_at(POOR) == 5
    assert found.stopped_at(BEST) is None


def test_of_two_trials_none_is_stopped(search: Any) -> None:
    for pair in ((GOOD, POOR), (POOR, GOOD)):
        found = search()
        assert [found.stopped_at(one) for one in pair] == [None, None]


def test_epochs_before_the_full_phase_decide_nothing(search: Any) -> None:
    found = search()
    for _ in range(ENOUGH):
        found.stopped_at(GOOD, upper=[0.99] * 30)
    assert found.stopped_at(BEST, upper=[0.01] * 30) is None


def test_recipes_are_never_compared(search: Any) -> None:
    found = search()
    for _ in range(ENOUGH):
        found.stopped_at(GOOD)
    assert found.stopped_at(POOR, recipe=OTHER) is None
    assert found.stopped_at(POOR) == 5


def test_a_failed_trials_report_decides_nothing(search: Any) -> None:
    trial = SimpleNamespace(config={"spec": {"recipe": OURS, "name": "broken"}})
    assert search().scheduler.on_trial_result(None, trial, {"failed": "no such shape"}) == "CONTINUE"


def past(objectives: Sequence[float], recipe: str = OURS) -> dict[str, Past]:
    return {f"old{number}": (recipe, objectives) for number in range(ENOUGH)}


def test_trials_that_ended_before_an_interruption_count(search: Any) -> None:
    found = search(past(GOOD))
    assert found.stopped_at(POOR) == 5
    assert found.stopped_at(BEST) is None


def test_past_trials_of_other_recipes_do_not(search: Any) -> None:
    assert search({**past(GOOD, OTHER), "gone": ("not_in_this_sweep", GOOD)}).stopped_at(POOR) is None


def test_a_past_trial_counts_as_far_as_it_got(search: Any) -> None:
    assert search(past(GOOD[:4])).stopped_at(POOR) is None
    assert search(past(GOOD[:5])).stopped_at(POOR) == 5


class Controller:
    """Tune's side: trials in any order, as in a set; a look at those that have ended is counted."""

    def __init__(self, states: Mapping[str, str], ended: int = 0) -> None:
        self.live = [SimpleNamespace(trial_id=name, status=status) for name, status in states.items()]
        self.ended = [SimpleNamespace(trial_id=f"old{number}", status="TERMINATED") for number in range(ended)]

    def get_live_trials(self) -> list[Any]:
        return self.live[::-1]

    def get_trials(self) -> list[Any]:
        raise AssertionError("with thousands of trials that have ended, this is most of the work")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"a": "RUNNING", "b": "PENDING", "c": "PENDING"}, "b"),
        ({"a": "PAUSED", "b": "RUNNING", "c": "PENDING"}, "c"),
        ({"a": "RUNNING", "b": "PAUSED", "c": "PAUSED"}, "b"),
        ({"a": "RUNNING"}, None),
        ({}, None),
    ],
)
def test_the_first_trial_that_waits_is_next_and_ended_ones_are_not_looked_at(
    states: Mapping[str, str], expected: str | None
) -> None:
    scheduler, controller = build_scheduler({OURS: 9}, {}), Controller(states, ended=5)
    for trial in (*controller.ended, *controller.live):
        scheduler.on_trial_add(controller, trial)
    chosen = scheduler.choose_trial_to_run(controller)
    assert (None if chosen is None else chosen.trial_id) == expected
