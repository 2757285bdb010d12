"""Which trials are stopped: by their own recipe's rivals alone, and never before a third of the full phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from muralab.tune.scheduler import Past, build_scheduler
from tests.conftest import BuildSpec

OURS, OTHER = "tiny_lab.small_net", "cnn"
GOOD, MIDDLING, POOR, BEST = [0.8] * 9, [0.6] * 9, [0.2] * 9, [0.9] * 9


class Search:
    """Tune's side: hands the scheduler what trials report."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.n_trials = scheduler, 0

    def stopped_at(self, objectives: Sequence[float], *, recipe: str = OURS, upper: Sequence[float] = ()) -> int | None:
        """The epoch of the full phase after which a new trial is stopped; None where it may go on to its end."""
        self.n_trials += 1
        trial = SimpleNamespace(trial_id=f"t{self.n_trials}", config={"spec": {"recipe": recipe}})
        self.scheduler.on_trial_add(None, trial)
        clock = [(0, objective) for objective in upper] + list(enumerate(objectives, start=1))
        for epoch, objective in clock:
            decision = self.scheduler.on_trial_result(None, trial, {"full_epoch": epoch, "objective": objective})
            if decision == "STOP":
                return epoch
        return None


@pytest.fixture
def search(build_spec: BuildSpec) -> Any:
    """A function of past trials -> a search of two recipes with nine epochs in their full phase."""

    def build(past: Mapping[str, Past] | None = None) -> Search:
        specs = [build_spec(recipe, name=recipe, overrides={"full.epochs": 9}) for recipe in (OURS, OTHER)]
        return Search(build_scheduler(specs, past or {}))

    return build


def test_the_worst_is_stopped_and_the_best_goes_on(search: Any) -> None:
    found = search()
    assert found.stopped_at(GOOD) is None, "the first has no rival"
    assert found.stopped_at(POOR) == 3
    assert found.stopped_at(BEST) is None


def test_nothing_is_stopped_before_a_third_of_the_full_phase(search: Any) -> None:
    found = search()
    found.stopped_at(GOOD)
    assert found.stopped_at([0.1, 0.1, *BEST[2:]]) is None


def test_who_falls_behind_later_is_stopped_at_the_next_decision(search: Any) -> None:
    found = search()
    found.stopped_at(GOOD)
    assert found.stopped_at([0.9] * 8 + [0.1]) == 9


def test_epochs_before_the_full_phase_decide_nothing(search: Any) -> None:
    found = search()
    found.stopped_at(GOOD, upper=[0.99] * 30)
    assert found.stopped_at(BEST, upper=[0.01] * 30) is None


def test_recipes_are_never_compared(search: Any) -> None:
    found = search()
    found.stopped_at(GOOD)
    assert found.stopped_at(POOR, recipe=OTHER) is None
    assert found.stopped_at(POOR) == 3


def test_trials_that_ended_before_an_interruption_count(search: Any) -> None:
    assert search().stopped_at(MIDDLING) is None
    found = search({"old": (OURS, GOOD)})
    assert found.stopped_at(MIDDLING) == 3
    assert found.stopped_at(BEST) is None


def test_past_trials_of_other_recipes_do_not(search: Any) -> None:
    assert search({"old": (OTHER, GOOD), "gone": ("not_in_this_sweep", GOOD)}).stopped_at(MIDDLING) is None


def test_a_past_trial_counts_at_the_decisions_that_it_reached(search: Any) -> None:
    assert search({"old": (OURS, GOOD[:2])}).stopped_at(MIDDLING) is None
    assert search({"old": (OURS, GOOD[:3])}).stopped_at(MIDDLING) == 3
