"""Pruning: asynchronous successive halving (ASHA), for each recipe by itself.

A small network and an InceptionV3 are never compared. The clock is the epoch within the full phase, so trials whose
backbone is still frozen are never compared either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from muralab.trial import TrialSpec, recipes_of

REDUCTION_FACTOR = 3
Past = tuple[str, Sequence[float]]
"""A trial that has ended: its recipe, and the objective after each epoch of its full phase."""


def build_scheduler(specs: Sequence[TrialSpec], past: Mapping[str, Past]) -> Any:
    """One ASHA per recipe behind one scheduler: Tune asks, the trial's own recipe decides."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

    def asha(epochs: int) -> Any:
        return AsyncHyperBandScheduler(
            time_attr="full_epoch",
            metric="objective",
            mode="max",
            grace_period=max(1, epochs // REDUCTION_FACTOR),
            max_t=max(2, epochs + 1),  # beyond the last epoch: a trial ends by itself, not by its scheduler
            reduction_factor=REDUCTION_FACTOR,
        )

    by_recipe = {spec.recipe: asha(recipes_of(spec)[1].full.epochs) for spec in specs}
    for name, (recipe, objectives) in past.items():
        if recipe in by_recipe:
            trial = SimpleNamespace(trial_id=f"past-{name}")
            by_recipe[recipe].on_trial_add(None, trial)
            for epoch, objective in enumerate(objectives, start=1):
                by_recipe[recipe].on_trial_result(None, trial, {"full_epoch": epoch, "objective": objective})

    class PerRecipe(FIFOScheduler):  # type: ignore[misc]
        """First in, first out; a trial is stopped by the ASHA of its own recipe."""

        def _own(self, trial: Any) -> Any:
            return by_recipe[trial.config["spec"]["recipe"]]

        def on_trial_add(self, controller: Any, trial: Any) -> None:
            self._own(trial).on_trial_add(controller, trial)

        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            return str(self._own(trial).on_trial_result(controller, trial, result))

        def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
            self._own(trial).on_trial_complete(controller, trial, result)

        def on_trial_remove(self, controller: Any, trial: Any) -> None:
            self._own(trial).on_trial_remove(controller, trial)

    return PerRecipe()
