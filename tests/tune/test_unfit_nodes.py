"""Where trials are placed once a node has turned out unable to train."""

from __future__ import annotations

from typing import Any

import pytest
from ray import util
from ray.air.execution.resources import request
from ray.tune import PlacementGroupFactory

from muralab.tune.unfit_nodes import is_any_left, place_request

BUNDLE = {"CPU": 2.0, "memory": 5.0}


def test_a_place_is_requested_on_fit_nodes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    unfit: set[str] = set()
    place = place_request(BUNDLE, unfit=lambda: unfit)
    for module in (request, util):
        monkeypatch.setattr(module, "placement_group", lambda *args, **kwargs: asked.append((args, kwargs)))
    place.to_placement_group()
    unfit |= {"b" * 56, "a" * 56}
    place.to_placement_group()
    selector = {"ray.io/node-id": f"!in({'a' * 56},{'b' * 56})"}
    assert asked == [(([BUNDLE], "PACK"), {}), (([BUNDLE], "PACK"), {"bundle_label_selector": [selector]})]


def test_trials_share_processes_as_with_any_request() -> None:
    assert place_request(BUNDLE, unfit=set) == PlacementGroupFactory([BUNDLE])
    assert hash(place_request(BUNDLE, unfit=set)) == hash(PlacementGroupFactory([BUNDLE]))


@pytest.mark.parametrize(
    ("unfit", "changes", "expected"),
    [
        (set(), {}, True),
        ({"a"}, {}, False),
        (set(), {"Alive": False}, False),
        (set(), {"Resources": {"CPU": 8.0, "memory": 1.0}}, False),
    ],
)
def test_a_node_is_left_if_it_lives_is_fit_and_holds_a_trial(
    unfit: set[str], changes: dict[str, Any], expected: bool
) -> None:
    node = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 8.0, "memory": 9.0}, **changes}
    assert is_any_left([node], unfit, BUNDLE) is expected
