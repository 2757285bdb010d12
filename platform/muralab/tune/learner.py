"""Values for each trial as it starts, learned from those that have ended (`search=tpe`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from muralab.search_space import Value
from muralab.trial import TrialSpec
from muralab.tune.adaptive import Observation, choose_values, observe


class Learner:
    """Knows what the trials of a search have reached, and which ones are running."""

    def __init__(self, observed: Sequence[Observation], on_chosen: Callable[[str, Mapping[str, Value]], None]) -> None:
        """Begin with what is known.

        Args:
            observed: trials that have ended before, of this and of earlier sweeps.
            on_chosen: called with a trial's name and the values that were chosen for it, before it starts.
        """
        self._known, self._on_chosen = list(observed), on_chosen
        self._running: dict[str, TrialSpec] = {}

    def start(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's specification with its values, which are chosen now unless it has them."""
        trial = TrialSpec(**spec)
        if trial.is_undrawn:
            trial = replace(trial, drawn=choose_values(trial, self._known, list(self._running.values())))
            self._on_chosen(trial.name, trial.drawn)
        self._running[trial.name] = trial
        return trial.to_dict()

    def end(self, name: str, reported: Mapping[str, Any]) -> None:
        """Learn from a trial that has ended: `reached`, unless it `diverged` or `failed`."""
        trial = self._running.pop(name)
        if reported.get("diverged"):
            self._known.append(observe(trial, math.nan))
        elif "failed" not in reported and "reached" in reported:
            self._known.append(observe(trial, reported["reached"]))
