"""Which model a sweep registers, and what it states where none is registered."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from muralab.errors import SettingsError
from muralab.results.final_test import FinalTest
from muralab.tune.registration import Outcome, Registration, register_candidate, select_candidate
from tests.models import build_model

GATE = "inception_add_gate"


def final_test_of(recipe: str = GATE, skill: float = 1.5, **fields: Any) -> FinalTest:
    spec: Any = SimpleNamespace(recipe=recipe, name=f"{recipe}-00")
    return FinalTest(spec=spec, network=None, model=build_model(recipe, skill, **fields))


@pytest.fixture
def sweep() -> Any:
    """Of two recipes, one of which registers."""
    recipes = {"cnn": SimpleNamespace(registers=False), GATE: SimpleNamespace(registers=True)}
    config = SimpleNamespace(recipes=recipes, options=SimpleNamespace(test_folds=None))
    return SimpleNamespace(part="wrist", config=config, dataset=SimpleNamespace(hide_names=str))


def registered(test: FinalTest) -> Any:
    return SimpleNamespace(test=test, statements=["accepted"])


def refuse(_: FinalTest) -> Registration:
    raise SettingsError("The export differs from the network.")


def outcome(sweep: Any, *tests: FinalTest, register: Any = registered) -> Outcome:
    return register_candidate(sweep, tests, register)


def test_the_best_on_validation_of_those_that_register_is_selected() -> None:
    tests = [
        final_test_of("cnn", objective=0.9),
        final_test_of(objective=0.5),
        final_test_of(objective=0.8),
        final_test_of(objective=math.nan),
    ]
    assert select_candidate(tests) is tests[2]


def test_of_tied_models_the_first_is_selected() -> None:
    tests = [final_test_of(objective=0.8), final_test_of(objective=0.8)]
    assert select_candidate(tests) is tests[0]


def test_nothing_is_selected_where_no_recipe_registers() -> None:
    assert select_candidate([final_test_of("cnn")]) is None


def test_the_winner_is_selected_where_that_is_asked_for(sweep: Any) -> None:
    sweep.config.options.register = "winner"
    winner = final_test_of("cnn", objective=0.9)
    found = outcome(sweep, final_test_of(objective=0.8), winner)
    assert found.registration is not None
    assert found.registration.test is winner


def test_a_registered_candidate_states_the_gates_decision(sweep: Any) -> None:
    test = final_test_of()
    found = outcome(sweep, final_test_of("cnn"), test)
    assert found.registration is not None
    assert (found.registration.test, list(found.statements), found.error) == (test, ["accepted"], None)


def test_a_model_that_does_not_beat_chance_is_not_registered(sweep: Any) -> None:
    found = outcome(sweep, final_test_of(skill=0.0), register=refuse)
    assert found.error is None
    assert found.statements[0].startswith(
        f"Not registered: {GATE} is not shown to beat chance on the test set (AUROC 0."
    )


def test_a_failing_registration_becomes_part_of_the_outcome(sweep: Any) -> None:
    found = outcome(sweep, final_test_of(), register=refuse)
    assert isinstance(found.error, SettingsError)
    assert "passed through the gate. The export differs from the network. Its weights" in found.statements[0]
    assert "promote --part wrist --run run-inception_add_gate" in found.statements[0]


def test_the_exporters_advice_is_cut_to_its_first_line(sweep: Any) -> None:
    def fail(_: FinalTest) -> Registration:
        raise ValueError("It is \x1b[96mstep 3\x1b[0m.\nNext steps: ...")

    (statement,) = outcome(sweep, final_test_of(), register=fail).statements
    assert "through the gate. It is step 3. (ValueError). Its weights" in statement


def test_a_registering_recipe_without_a_result_is_named(sweep: Any) -> None:
    assert outcome(sweep, final_test_of("cnn")).statements == [
        f"Not registered: {GATE}, which would be, has no result."
    ]


def test_a_sweep_without_registering_recipes_states_that(sweep: Any) -> None:
    del sweep.config.recipes[GATE]
    assert "no recipe that is meant for serving" in outcome(sweep, final_test_of("cnn")).statements[0]
