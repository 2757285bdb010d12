"""The trials of a search as Ray Tune asks for them.

Tune asks for a trial when there is room for it. It gets the planned one that is next; where later trials learn from
earlier ones (`search=tpe`), with values chosen from what those of its recipe have reached by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from muralab.search_space import Value
from muralab.trial import TrialSpec
from muralab.tune.adaptive import Observation, choose_values, observe


def build_searcher(
    specs: Sequence[TrialSpec], observed: Sequence[Observation], on_chosen: Callable[[str, Mapping[str, Value]], None]
) -> Any:
    """A searcher of Tune.

    Args:
        specs: the trials that are left, in their order.
        observed: trials that have ended before, of this and of earlier sweeps.
        on_chosen: called with a trial's name and the values that were chosen for it, before it starts.
    """
    from ray.tune.search import Searcher

    waiting, known = list(specs), list(observed)
    running: dict[str, TrialSpec] = {}
    last: dict[str, Mapping[str, Any]] = {}

    class PlannedTrials(Searcher):  # type: ignore[misc]
        """Tune knows trials by ids of its own."""

        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            if not waiting:
                return str(Searcher.FINISHED)
            spec = waiting.pop(0)
            if spec.is_undrawn:
                spec = replace(spec, drawn=choose_values(spec, known, list(running.values())))
                on_chosen(spec.name, spec.drawn)
            running[trial_id] = spec
            return {"spec": spec.to_dict()}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            last[trial_id] = {**last.get(trial_id, {}), **result}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            spec, reported = running.pop(trial_id), {**last.pop(trial_id, {}), **(result or {})}
            if reported.get("diverged"):
                known.append(observe(spec, math.nan))
            elif not error and "failed" not in reported and "reached" in reported:
                known.append(observe(spec, reported["reached"]))

        def save(self, checkpoint_path: str) -> None:
            """The search's own files hold all that is needed."""

        def restore(self, checkpoint_path: str) -> None:
            """It is never restored."""

    return PlannedTrials()
