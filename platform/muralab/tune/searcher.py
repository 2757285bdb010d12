"""The trials of a search as Ray Tune asks for them.

Tune asks for a trial when there is room for it. It gets the planned one that is next; where later trials learn from
earlier ones (`search=tpe`), with values chosen from what those of its recipe have reached by then. A grid of Tune would
be copied whole for each of its trials: 10,000 do not start within minutes. Without a learner nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muralab.tune.learner import Learner


def build_searcher(
    specs: Sequence[Mapping[str, Any]], usual_epoch_s: Mapping[str, float], learner: Learner | None = None
) -> Any:
    """A searcher of Tune, which gives each trial its `spec` and its `usual_epoch_s`.

    Args:
        specs: the trials that are left, in their order, as dictionaries.
        usual_epoch_s: trial -> estimated seconds of its longest epoch.
        learner: chooses the values of those that have none; None: all have theirs.
    """
    from ray.tune.search import Searcher

    waiting = list(reversed(specs))
    running: dict[str, Mapping[str, Any]] = {}
    last: dict[str, Mapping[str, Any]] = {}

    class PlannedTrials(Searcher):  # type: ignore[misc]
        """Tune knows trials by ids of its own."""

        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            if not waiting:
                return str(Searcher.FINISHED)
            spec = waiting.pop()
            running[trial_id] = spec if learner is None else learner.start(spec)
            return {"spec": running[trial_id], "usual_epoch_s": usual_epoch_s.get(str(spec["name"]), 0.0)}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            if learner is not None:
                last[trial_id] = {**last.get(trial_id, {}), **result}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            spec, reported = running.pop(trial_id), {**last.pop(trial_id, {}), **(result or {})}
            if learner is not None:
                learner.end(str(spec["name"]), {"failed": True} if error else reported)

        def save(self, checkpoint_path: str) -> None:
            """The search's own files hold all that is needed."""

        def restore(self, checkpoint_path: str) -> None:
            """It is never restored."""

    return PlannedTrials()
