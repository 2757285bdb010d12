"""Nodes of a cluster that turned out unable to train: their trials go elsewhere, and no new process is started there.

A request for a place names the nodes that it must not be on, by the label that Ray gives each node. Requests that
waited before may still get a place there; such a trial finds the node unfit itself, and leaves it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

NODE_LABEL = "ray.io/node-id"


class UnfitNodes:
    """Nodes that no trial is placed on any more."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.needed: dict[str, float] = {}
        """CPU, GPU and memory of a trial."""
        self._reasons: dict[str, str] = {}
        """Trial that is about to leave its node -> why."""

    def found(self, trial: str, reason: str) -> None:
        """A trial has found that its node cannot train, and is about to end."""
        self._reasons[trial] = reason

    def left(self, trial: str, node: str) -> dict[str, Any]:
        """Exclude the node of a trial whose process has ended, if that is why.

        Returns:
            The `reason`, and whether there is `any_left` that could hold a trial; empty if it ended otherwise.
        """
        if trial not in self._reasons:
            return {}
        import ray

        self.ids.add(node)
        return {"reason": self._reasons.pop(trial), "any_left": is_any_left(ray.nodes(), self.ids, self.needed)}


def place_request(bundle: Mapping[str, float], unfit: Callable[[], Set[str]]) -> Any:
    """What Tune asks Ray for when it places a trial.

    Args:
        bundle: CPU, GPU and memory of a trial.
        unfit: returns ids of nodes that it must not be placed on; called for each place.
    """
    from ray import util
    from ray.tune import PlacementGroupFactory

    class FitPlace(PlacementGroupFactory):  # type: ignore[misc]
        """Equal to any other request of this size, so trials still share processes."""

        def to_placement_group(self) -> Any:
            if not unfit():
                return super().to_placement_group()
            selector = {NODE_LABEL: f"!in({','.join(sorted(unfit()))})"}
            return util.placement_group(self.bundles, self.strategy, bundle_label_selector=[selector])

    return FitPlace([dict(bundle)])


def is_any_left(nodes: Iterable[Mapping[str, Any]], unfit: Set[str], bundle: Mapping[str, float]) -> bool:
    """Whether a living node could hold a trial.

    Args:
        nodes: as `ray.nodes()` lists them.
        unfit: ids of those that cannot train.
        bundle: CPU, GPU and memory of a trial.
    """
    return any(
        node["Alive"]
        and node["NodeID"] not in unfit
        and all(node["Resources"].get(kind, 0) >= amount for kind, amount in bundle.items())
        for node in nodes
    )
