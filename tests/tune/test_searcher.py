"""Trials as Ray Tune asks for them, and values that are learned from what earlier ones reached."""

from __future__ import annotations

import math
from typing import Any

import pytest

from muralab.trial import TrialSpec
from muralab.tune import learner as learner_module
from muralab.tune.adaptive import Observation
from muralab.tune.learner import Learner
from muralab.tune.searcher import build_searcher


def spec(name: str, **changes: Any) -> dict[str, Any]:
    return TrialSpec(name=name, recipe="cnn", table="", cache_folder="", folder=name, **changes).to_dict()


def test_trials_come_in_their_order_until_none_is_left() -> None:
    searcher = build_searcher([spec("a"), spec("b")], {"b": 3.0})
    assert searcher.suggest("1") == {"spec": spec("a"), "usual_epoch_s": 0.0}
    assert searcher.suggest("2") == {"spec": spec("b"), "usual_epoch_s": 3.0}
    assert searcher.suggest("3") == type(searcher).FINISHED
    searcher.on_trial_complete("1", {"reached": 0.5})
    searcher.on_trial_complete("2", error=True)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What the values of each trial were chosen from: trial -> what it had reached; running ones have NaN."""
    given: list[dict[str, float]] = []

    def choose(trial: TrialSpec, known: list[Observation], running: list[TrialSpec]) -> dict[str, float]:
        given.append({one.trial: one.objective for one in known} | {one.name: math.nan for one in running})
        return {"full.lr": 1e-3}

    monkeypatch.setattr(learner_module, "choose_values", choose)
    return given


@pytest.mark.parametrize(
    ("reported", "error", "known"),
    [
        ({"reached": 0.7}, False, {"a": 0.7}),
        ({"reached": 0.7, "diverged": True}, False, {"a": math.nan}),
        ({"reached": 0.7, "failed": "a reason"}, False, {}),
        ({"reached": 0.7}, True, {}),
        ({}, False, {}),
    ],
)
def test_values_are_chosen_from_what_has_ended(
    given: list[dict[str, float]], reported: dict[str, Any], error: bool, known: dict[str, float]
) -> None:
    chosen: dict[str, Any] = {}
    learner = Learner([], on_chosen=chosen.__setitem__)
    searcher = build_searcher([spec(name, draws=["full.lr"]) for name in "abc"], {}, learner)
    assert searcher.suggest("1")["spec"]["drawn"] == {"full.lr": 1e-3}
    searcher.suggest("2")
    searcher.on_trial_result("1", reported)
    searcher.on_trial_complete("1", {}, error=error)
    searcher.suggest("3")
    assert list(chosen) == ["a", "b", "c"]
    assert [list(one) for one in given[:2]] == [[], ["a"]]
    assert given[2] == pytest.approx({**known, "b": math.nan}, nan_ok=True)


def test_values_that_a_trial_has_are_kept(given: list[dict[str, float]]) -> None:
    searcher = build_searcher([spec("a", draws=["full.lr"], drawn={"full.lr": 0.5})], {}, Learner([], on_chosen=print))
    assert searcher.suggest("1")["spec"]["drawn"] == {"full.lr": 0.5}
    assert given == []
