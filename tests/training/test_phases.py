"""Phases: learning rates, frozen parameters, BatchNorm modes, and invalid settings."""

from __future__ import annotations

import dataclasses

import pytest
from torch import nn

from muralab.errors import RecipeError
from muralab.training.phase_trainer import LOWEST_RATE, rate_factor
from muralab.training.phases import HEAD_ONLY, Phase, freeze, head_alone, parameter_groups, select_phase, set_modes
from tests.training.conftest import build_network

UPPER = Phase(epochs=1, lr=0.1, trains=HEAD_ONLY)


@pytest.mark.parametrize(
    ("scores", "keeps", "kept"),
    [
        ({"upper": 0.8, "full": 0.7}, "best", "upper"),
        ({"upper": 0.7, "full": 0.8}, "best", "full"),
        ({"upper": 0.7, "full": 0.7}, "best", "full"),
        ({"upper": 0.8, "full": 0.7}, "full", "full"),
        ({"upper": 0.8}, "full", "upper"),
    ],
)
def test_the_weights_of_the_better_phase_are_kept_unless_told_otherwise(
    scores: dict[str, float], keeps: str, kept: str
) -> None:
    assert select_phase(scores, keeps) == kept


def factors(n_steps: int, n_warmup: int, schedule: str = "cosine") -> list[float]:
    return [rate_factor(step, n_steps=n_steps, n_warmup=n_warmup, schedule=schedule) for step in range(n_steps)]


def test_the_rate_rises_to_its_peak_and_falls_to_a_hundredth() -> None:
    rates = factors(100, 10)
    assert rates[0] == LOWEST_RATE
    assert rates.index(max(rates)) == 10
    assert rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert LOWEST_RATE < rates[-1] < LOWEST_RATE + 0.001


def test_the_cosine_is_halfway_in_the_middle() -> None:
    assert rate_factor(50, n_steps=100, n_warmup=0, schedule="cosine") == pytest.approx((1 + LOWEST_RATE) / 2)


def test_a_constant_rate_does_not_fall() -> None:
    assert factors(5, 2, "constant")[2:] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("n_steps", "n_warmup"), [(1, 0), (1, 1), (3, 3), (3, 10)])
def test_short_phases_have_positive_rates(n_steps: int, n_warmup: int) -> None:
    assert all(0 < rate <= 1 for rate in factors(n_steps, n_warmup))


def test_steps_beyond_the_end_keep_the_lowest_rate() -> None:
    assert rate_factor(200, n_steps=100, n_warmup=0, schedule="cosine") == pytest.approx(LOWEST_RATE)


def test_only_the_head_gets_a_rate_if_the_backbone_is_frozen() -> None:
    network = build_network()
    names = freeze(network, UPPER)
    assert names == ["head.0.weight", "head.0.bias", "head.3.weight", "head.3.bias"]
    assert head_alone(names)
    assert {id(p) for group in parameter_groups(network, UPPER) for p in group["params"]} == {
        id(p) for p in network.head.parameters()
    }


def test_a_later_phase_unfreezes() -> None:
    network = build_network()
    freeze(network, UPPER)
    names = freeze(network, Phase(epochs=1, lr=0.1))
    assert len(names) == len(list(network.parameters()))
    assert not head_alone(names)


def test_patterns_can_select_single_parameters() -> None:
    assert freeze(build_network(), Phase(epochs=1, lr=0.1, trains=("backbone.0.*", "*.3.bias"))) == [
        "backbone.0.weight", "backbone.0.bias", "head.3.bias"
    ]  # fmt: skip


def test_patterns_without_a_match_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"trains nothing: no parameter matches haed\.\*"):
        freeze(build_network(), dataclasses.replace(UPPER, trains=("haed.*",)))


def test_the_backbone_has_its_own_rate_and_biases_have_no_decay() -> None:
    network, phase = build_network(), Phase(epochs=1, lr=0.1, backbone_lr_factor=0.5, weight_decay=0.3)
    freeze(network, phase)
    groups = {id(p): group for group in parameter_groups(network, phase) for p in group["params"]}
    found = {name: (groups[id(p)]["lr"], groups[id(p)]["weight_decay"]) for name, p in network.named_parameters()}
    assert found["backbone.0.weight"] == (0.05, 0.3)
    assert found["backbone.1.weight"] == (0.05, 0.0)
    assert found["head.0.weight"] == (0.1, 0.3)
    assert found["head.0.bias"] == (0.1, 0.0)


@pytest.mark.parametrize(("mode", "training"), [("eval", False), ("train", True)])
def test_frozen_batchnorm_keeps_or_updates_its_statistics(mode: str, training: bool) -> None:
    network, phase = build_network(), dataclasses.replace(UPPER, frozen_batchnorm=mode)
    freeze(network, phase)
    set_modes(network, phase)
    assert network.backbone[1].training is training
    assert network.head.training


def test_a_trained_batchnorm_is_in_training_mode() -> None:
    network, phase = build_network(), Phase(epochs=1, lr=0.1, trains=("backbone.1.*",))
    freeze(network, phase)
    set_modes(network.eval(), phase)
    assert isinstance(network.backbone[1], nn.BatchNorm2d)
    assert network.backbone[1].training


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", -1, "epochs=-1: expected 0 to 99,999"),
        ("lr", 0.0, "lr=0.0: expected above 0"),
        ("lr", float("nan"), "lr=nan: expected above 0"),
        ("backbone_lr_factor", -0.1, "backbone_lr_factor=-0.1: expected 0 to 10"),
        ("weight_decay", 11.0, "weight_decay=11.0: expected 0 to 10"),
        ("warmup_epochs", -1.0, "warmup_epochs=-1.0: expected 0 or more"),
        ("schedule", "cosin", "schedule='cosin': expected one of cosine, constant"),
        ("frozen_batchnorm", "off", "frozen_batchnorm='off': expected one of eval, train"),
        ("patience", -1, "patience=-1: expected 0 or more"),
    ],
)
def test_an_invalid_phase_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(UPPER, **{field: value})


def test_all_problems_of_a_phase_are_reported_at_once() -> None:
    with pytest.raises(RecipeError, match=r"epochs=-1.*; lr=-2.*; patience=-3"):
        Phase(epochs=-1, lr=-2, patience=-3)
