"""Pruning as Ray Tune asks for it: each recipe has its own stopping rule.

A small network and an InceptionV3 are never compared. The clock is the epoch within the full phase, so trials whose
backbone is still frozen are never compared either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from muralab.tune.stopping import StoppingRule

WAITING = ("PENDING", "PAUSED")
"""Ray's states of trials that may run next, the first ones first."""
Past = tuple[str, Sequence[float]]
"""A trial that has ended: its recipe, and the objective after each epoch of its full phase."""


def build_scheduler(full_epochs: Mapping[str, int], past: Mapping[str, Past]) -> Any:
    """First in, first out; a trial is stopped by the rule of its own recipe.

    Args:
        full_epochs: recipe -> epochs of its full phase.
        past: trials that ended before an interruption: new ones are compared with them too.
    """
    from ray.tune.schedulers import FIFOScheduler

    rules = {recipe: StoppingRule(epochs) for recipe, epochs in full_epochs.items()}
    for name, (recipe, objectives) in past.items():
        for epoch, objective in enumerate(objectives if recipe in rules else (), start=1):
            rules[recipe].stops(name, epoch, objective)

    class Scheduler(FIFOScheduler):  # type: ignore[misc]
        """Tune asks after every epoch, and at every step which trial comes next."""

        def __init__(self) -> None:
            super().__init__()
            self._order = count()
            self._added: dict[str, int] = {}

        def on_trial_add(self, _controller: Any, trial: Any) -> None:
            self._added[trial.trial_id] = next(self._order)

        def choose_trial_to_run(self, controller: Any) -> Any:
            """The first that waits, of those that have not ended; Ray's own looks through all, thousands of times."""
            waiting = [trial for trial in controller.get_live_trials() if trial.status in WAITING]
            place = lambda trial: (WAITING.index(trial.status), self._added[trial.trial_id])  # noqa: E731
            return min(waiting, key=place, default=None)

        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            spec = trial.config["spec"]
            if result.get("full_epoch", 0) < 1:  # the backbone is frozen, or the trial failed
                return str(self.CONTINUE)
            stops = rules[spec["recipe"]].stops(spec["name"], result["full_epoch"], result["objective"])
            return str(self.STOP if stops else self.CONTINUE)

    return Scheduler()
