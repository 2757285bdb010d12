"""The stopping rule: late, on smoothed values, among enough trials; a late bloomer goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from muralab.tune.stopping import MIN_PEERS, StoppingRule

EPOCHS = 12
GOOD, MIDDLING, POOR = ([level] * EPOCHS for level in (0.8, 0.7, 0.5))


class Search:
    """Trials of one recipe, one after the other."""

    def __init__(self, *curves: Sequence[float], n_epochs: int = EPOCHS) -> None:
        self.rule, self.n_trials = StoppingRule(n_epochs), 0
        for curve in curves:
            self.stopped_at(curve)

    def stopped_at(self, curve: Sequence[float]) -> int | None:
        """The epoch after which a new trial is stopped; None where it goes on to its end."""
        self.n_trials += 1
        name = f"t{self.n_trials}"
        return next((epoch for epoch, value in enumerate(curve, 1) if self.rule.stops(name, epoch, value)), None)


def late_bloomer(low: float = 0.5, high: float = 0.85) -> list[float]:
    """It gains as a cosine schedule's rate falls."""
    return [low + (high - low) * (1 - math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(1, EPOCHS + 1)]


def test_a_trial_that_is_behind_is_stopped_when_the_rate_has_halved() -> None:
    assert Search(GOOD, MIDDLING, GOOD, MIDDLING).stopped_at(POOR) == EPOCHS // 2


@pytest.mark.parametrize("n_epochs", [1, 2, EPOCHS])
def test_no_trial_is_stopped_after_its_last_epoch(n_epochs: int) -> None:
    search = Search(*[GOOD[:n_epochs]] * 5, n_epochs=n_epochs)
    late = [*GOOD[: n_epochs - 1], 0.0]
    assert search.stopped_at(late) is None


def test_the_best_is_never_stopped() -> None:
    assert Search(MIDDLING, POOR, MIDDLING, POOR, MIDDLING).stopped_at(GOOD) is None


@pytest.mark.parametrize("n_peers", range(MIN_PEERS))
def test_with_too_few_trials_none_is_stopped(n_peers: int) -> None:
    """Successive halving never stopped the first of two trials, and mostly stopped the second one."""
    assert Search(*[GOOD] * n_peers).stopped_at(POOR) is None


def test_a_single_poor_epoch_decides_nothing() -> None:
    dip = [*GOOD[:5], 0.5, *GOOD[6:]]
    assert Search(*[MIDDLING] * 5, GOOD).stopped_at(dip) is None


def test_a_single_good_epoch_saves_no_trial() -> None:
    peak = [*POOR[:5], 0.9, *POOR[6:]]
    assert Search(*[GOOD] * 5).stopped_at(peak) is not None


@pytest.mark.parametrize("place", range(1, 9))
def test_a_late_bloomer_goes_on_wherever_it_is_placed(place: int) -> None:
    others = [GOOD, MIDDLING, POOR, MIDDLING, GOOD, POOR, MIDDLING]
    assert Search(*others[: place - 1]).stopped_at(late_bloomer()) is None


def test_who_falls_behind_later_is_stopped_then() -> None:
    falling = [*GOOD[:8], *POOR[8:]]
    stopped = Search(*[MIDDLING] * 5).stopped_at(falling)
    assert stopped is not None
    assert stopped > 8


def test_a_trial_counts_only_where_it_got_as_far() -> None:
    assert Search(*[GOOD[:5]] * 5).stopped_at(POOR) is None


def test_an_undefined_objective_ranks_last() -> None:
    assert Search(*[POOR] * 5).stopped_at([math.nan] * EPOCHS) == EPOCHS // 2


def test_tied_trials_go_on() -> None:
    assert Search(*[GOOD] * 5).stopped_at(GOOD) is None


def test_epochs_that_a_restarted_trial_repeats_decide_nothing() -> None:
    search = Search(POOR, POOR, POOR)
    assert not any(search.rule.stops("again", epoch, 0.4) for epoch in range(1, 6))
    for _ in range(5):
        search.stopped_at(GOOD)
    assert not any(search.rule.stops("again", epoch, 0.4) for epoch in range(1, 6))
    assert search.rule.stops("again", 6, 0.4)


@pytest.mark.parametrize("n_epochs", [2, 3])
def test_short_phases_work(n_epochs: int) -> None:
    assert Search(*[GOOD[:n_epochs]] * 4, n_epochs=n_epochs).stopped_at(POOR[:n_epochs]) == n_epochs - 1
