"""How much training time does pruning save, how much of the objective does it cost, and does it spare a late bloomer?

    python -m bench.pruning          (half a minute on one core; --full: a few minutes, more orders and other rules)

Replays the recorded curves of whole searches (`bench.record_curves`) through the stopping rule of `muralab.tune`:
epochs arrive as from trials that run two at a time, in many orders of the trials. A trial's training does not depend
on the others, so what pruning would have stopped is known exactly.

The late bloomer is a made-up trial that ends 0.02 above the best recorded one, but gains only as its rate falls. It
takes the place of the first to the eighth trial.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench.common import Options, Row, run
from bench.record_curves import Row as RecordedEpoch
from bench.record_curves import read_rows
from muralab.tune import stopping
from muralab.tune.stopping import StoppingRule

CURVES = Path(__file__).parent / "curves"
SLOTS = 2
"""Trials at a time."""
MOST_LOST = 0.01
BLOOM = 0.02
"""How much better the late bloomer ends than the best recorded trial."""
PLACES = range(1, 9)
"""Of the late bloomer, in the order of the trials."""

Curve = Sequence[float]
Stops = Callable[[str, int, float], bool]
"""(trial, epoch of the full phase, objective) -> whether it is stopped."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A recorded search of one recipe."""

    recipe: str
    seed: int
    curves: Mapping[str, Curve]
    """Trial -> objective after each epoch of its full phase."""
    n_upper: int
    """Epochs of the upper phase, which every trial trains."""
    upper_s: float
    """Duration of an epoch of the upper phase; short where the backbone is frozen and its features are cached."""
    full_s: float
    """Duration of an epoch of the full phase."""

    @property
    def best(self) -> float:
        """The best objective without pruning."""
        return max(max(curve) for curve in self.curves.values())

    def seconds(self, trained: Mapping[str, int]) -> float:
        """Training time of all trials, given their epochs of the full phase."""
        return len(trained) * self.n_upper * self.upper_s + sum(trained.values()) * self.full_s


def read_searches(path: Path) -> list[Search]:
    """The searches of a file of curves."""
    rows = read_rows(path)
    return [
        read_search(recipe, seed, [row for row in rows if row[:2] == (recipe, seed)])
        for recipe, seed in dict.fromkeys(row[:2] for row in rows)
    ]


def read_search(recipe: str, seed: int, rows: Sequence[RecordedEpoch]) -> Search:
    """One search from its epochs."""
    curves: dict[str, list[float]] = {}
    for _, _, trial, phase, _, objective, _ in rows:
        if phase == "full":
            curves.setdefault(f"{trial:02d}", []).append(objective)
    upper_s, full_s = ([row[-1] for row in rows if row[3] == phase] for phase in ("upper", "full"))
    return Search(
        recipe=recipe,
        seed=seed,
        curves=curves,
        n_upper=max(row[4] for row in rows if row[3] == "upper"),
        upper_s=statistics.median(upper_s),
        full_s=statistics.median(full_s),
    )


def replay(search: Search, order: Sequence[str], stops: Stops, rng: np.random.Generator) -> dict[str, int]:
    """Trial -> epochs of the full phase that it trains until its end or until it is stopped.

    Args:
        search: the recorded one.
        order: of the trials.
        stops: the rule.
        rng: of the speed of each epoch, which varies by a tenth.
    """
    waiting, trained, clock = list(order)[::-1], dict.fromkeys(order, 0), 0.0
    events: list[tuple[float, str, int]] = []

    def epoch_ends(trial: str, epoch: int) -> None:
        heapq.heappush(events, (clock + rng.uniform(0.9, 1.1), trial, epoch))

    while waiting or events:
        while waiting and len(events) < SLOTS:
            epoch_ends(waiting.pop(), 1 - search.n_upper)
        clock, trial, epoch = heapq.heappop(events)
        curve = search.curves[trial]
        if epoch >= 1:
            trained[trial] = epoch
            if stops(trial, epoch, curve[epoch - 1]):
                continue
        if epoch < len(curve):
            epoch_ends(trial, epoch + 1)
    return trained


def late_bloomer(search: Search) -> Curve:
    """A trial that starts as low as the worst and ends above the best, and gains as its cosine rate falls."""
    n_epochs = max(len(curve) for curve in search.curves.values())
    low, high = min(curve[0] for curve in search.curves.values()), min(search.best + BLOOM, 1.0)
    fallen = [(1 - math.cos(math.pi * epoch / n_epochs)) / 2 for epoch in range(1, n_epochs + 1)]
    return [low + (high - low) * share for share in fallen]


def with_bloomer(search: Search, place: int) -> Search:
    """The search with the late bloomer instead of the trial at a place, from 1."""
    name = sorted(search.curves)[place - 1]
    return replace(search, curves={**search.curves, name: late_bloomer(search)})


def outcome(search: Search, trained: Mapping[str, int]) -> tuple[float, float]:
    """(share of the training time saved, best objective lost); a stopped trial keeps the best epoch that it reached."""
    whole = search.seconds({name: len(curve) for name, curve in search.curves.items()})
    best = max(max(search.curves[name][:epochs]) for name, epochs in trained.items() if epochs)
    return 1 - search.seconds(trained) / whole, search.best - best


def orders(search: Search, n_orders: int) -> list[list[str]]:
    """The order of the sweep, and random ones."""
    names = sorted(search.curves)
    return [names, *([*np.random.default_rng(number).permutation(names)] for number in range(n_orders - 1))]


def new_rule(search: Search) -> Stops:
    """The stopping rule of a sweep."""
    return stopping.StoppingRule(max(len(curve) for curve in search.curves.values())).stops


def asha(search: Search) -> Stops:
    """Ray's ASHA as sweeps used it until 2026-11: single epochs, first after a third of the phase, no least number."""
    from types import SimpleNamespace

    from ray.tune.schedulers import AsyncHyperBandScheduler

    n_epochs = max(len(curve) for curve in search.curves.values())
    scheduler = AsyncHyperBandScheduler(
        time_attr="full_epoch",
        metric="objective",
        mode="max",
        grace_period=max(1, n_epochs // 3),
        max_t=max(2, n_epochs + 1),
        reduction_factor=3,
    )
    trials: dict[str, SimpleNamespace] = {}

    def stops(trial: str, epoch: int, objective: float) -> bool:
        if trial not in trials:
            trials[trial] = SimpleNamespace(trial_id=trial)
            scheduler.on_trial_add(None, trials[trial])
        result = {"full_epoch": epoch, "objective": objective}
        return str(scheduler.on_trial_result(None, trials[trial], result)) == "STOP"

    return stops


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A rule over all searches of a file, in several orders of their trials."""

    saved: list[list[float]]
    """Share of the training time saved, [searches][orders]."""
    lost: list[list[float]]
    """Best objective lost, likewise."""
    bloomer_lost: list[float]
    """Best objective lost with the late bloomer, of every search and place."""

    @property
    def mean_saved(self) -> float:
        """Over searches and orders."""
        return statistics.mean(one for search in self.saved for one in search)

    @property
    def mean_lost(self) -> float:
        """Over searches and orders."""
        return statistics.mean(one for search in self.lost for one in search)

    @property
    def worst_lost(self) -> float:
        """Of all searches and orders."""
        return max(one for search in self.lost for one in search)

    @property
    def bloomers_lost(self) -> float:
        """Share of the searches with a late bloomer whose best objective falls by more than MOST_LOST."""
        return statistics.mean(one > MOST_LOST for one in self.bloomer_lost)


def replay_all(searches: Sequence[Search], build: Callable[[Search], Stops], n_orders: int) -> Replayed:
    """Replay every search in several orders, and with the late bloomer in every place."""
    saved, lost, bloomer_lost = [], [], []
    for search in searches:
        found = [
            outcome(search, replay(search, order, build(search), np.random.default_rng(number)))
            for number, order in enumerate(orders(search, n_orders))
        ]
        saved.append([one for one, _ in found])
        lost.append([one for _, one in found])
        for place in PLACES:
            changed = with_bloomer(search, place)
            trained = replay(changed, sorted(changed.curves), build(changed), np.random.default_rng(place))
            bloomer_lost.append(outcome(changed, trained)[1])
    return Replayed(saved=saved, lost=lost, bloomer_lost=bloomer_lost)


def halves(search: Search) -> list[Search]:
    """Its even and its odd trials, as two searches of half the size."""
    names = sorted(search.curves)
    return [replace(search, curves={name: search.curves[name] for name in part}) for part in (names[::2], names[1::2])]


def rows_of(title: str, searches: Sequence[Search], n_orders: int) -> list[Row]:
    """Time saved, objective lost, and late bloomers lost; beside Ray's ASHA."""
    ours, theirs = (replay_all(searches, build, n_orders) for build in (new_rule, asha))
    what = f"pruning: {title}, {len(searches)} searches of {len(searches[0].curves)} trials, {n_orders} orders"
    means = [statistics.mean(one) for one in ours.saved]
    return [
        Row(
            what=f"{what}: training time saved",
            ours=f"{ours.mean_saved:.0%} saved",
            theirs=f"ASHA {theirs.mean_saved:.0%}",
            ratio=ours.mean_saved,
            spread=(min(means), max(means)),
        ),
        Row(
            what=f"{what}: best objective lost",
            ours=f"{ours.mean_lost:.4f}, worst {ours.worst_lost:.3f}",
            theirs=f"ASHA {theirs.mean_lost:.4f}, worst {theirs.worst_lost:.3f}",
            ratio=ours.mean_lost,
            spread=(min(map(min, ours.lost)), ours.worst_lost),
            at_most=MOST_LOST,
        ),
        Row(
            what=f"{what}: a late bloomer in places {PLACES[0]} to {PLACES[-1]} is lost",
            ours=f"{ours.bloomers_lost:.0%} of {len(ours.bloomer_lost)}",
            theirs=f"ASHA {theirs.bloomers_lost:.0%}",
            ratio=ours.bloomers_lost,
            at_most=0.0,
        ),
    ]


def variant_rows(title: str, searches: Sequence[Search], n_orders: int) -> list[Row]:
    """The rule with other values, and without its projection: what was not chosen."""
    rows = []
    for name, values in VARIANTS.items():
        with mock.patch.multiple(stopping, **values):
            found = replay_all(searches, new_rule, n_orders)
        rows.append(
            Row(
                what=f"pruning: {title}: {name}",
                ours=f"{found.mean_saved:.0%} saved, {found.mean_lost:.4f} lost, worst {found.worst_lost:.3f}",
                theirs=f"late bloomers lost: {found.bloomers_lost:.0%}",
                ratio=found.mean_saved,
            )
        )
    return rows


class WithoutProjection(StoppingRule):
    """Compares what a trial has, not what it may gain."""

    def _projected(self, curve: Curve) -> float:
        return self._smoothed(curve, len(curve))


VARIANTS: dict[str, dict[str, Any]] = {
    "first decision after a third of the phase": {"FIRST_DECISION": 1 / 3},
    "first decision after 0.4": {"FIRST_DECISION": 0.4},
    "a quarter is kept": {"KEPT": 0.25},
    "half is kept": {"KEPT": 0.5},
    "without the projection": {"StoppingRule": WithoutProjection},
}


def measure(options: Options) -> list[Row]:
    """The rows of every file of curves, also of searches of half the size; with --full also other rules."""
    n_orders, rows = 200 if options.full else 40, []
    for path in sorted(CURVES.glob("*.csv")):
        searches = read_searches(path)
        rows += rows_of(path.stem, searches, n_orders)
        rows += rows_of(path.stem, [half for search in searches for half in halves(search)], n_orders // 2)
        rows += variant_rows(path.stem, searches, 20) if options.full else []
    return rows


if __name__ == "__main__":
    run(measure, __doc__)
