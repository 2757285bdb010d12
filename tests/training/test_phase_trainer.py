"""The steps of one phase: rates, cached features, averaged weights, and half precision."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from muralab.errors import SettingsError
from muralab.training import phase_trainer as stepper_module
from muralab.training.phase_trainer import Settings, Stepper, rate_factor
from muralab.training.phases import EVERYTHING, HEAD_ONLY, Phase, freeze
from tests.training.conftest import Pictures, build_network


def build(
    phase: Phase | None = None, *, cached: bool = False, data: Pictures | None = None, **settings: Any
) -> Stepper:
    torch.set_num_threads(1)
    network, phase = build_network(), phase or Phase(epochs=2, lr=0.02)
    freeze(network, phase)
    return Stepper(network, "full", phase, data or Pictures(), Settings(**settings), features=cached)


@given(st.integers(0, 5000), st.integers(1, 1000), st.integers(0, 2000), st.sampled_from(["cosine", "constant"]))
@example(0, 10, 5, "cosine")
@example(10, 10, 0, "cosine")
def test_a_rate_is_never_above_its_peak_nor_below_a_hundredth(
    step: int, n_steps: int, n_warmup: int, schedule: str
) -> None:
    factor = rate_factor(step, n_steps=n_steps, n_warmup=n_warmup, schedule=schedule)
    assert 0.01 - 1e-12 <= factor <= 1


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_rate_that_is_told_is_the_heads(factor: float) -> None:
    stepper = build(Phase(epochs=1, lr=0.1, schedule="constant", warmup_epochs=0, backbone_lr_factor=factor))
    assert stepper.lr == pytest.approx(0.1)


def test_every_step_of_a_phase_has_the_rate_of_its_place() -> None:
    stepper = build(Phase(epochs=2, lr=0.1, warmup_epochs=0.5, backbone_lr_factor=0.1))
    stepper.train_epoch(1)
    per_epoch = stepper.n_steps
    expected = rate_factor(per_epoch - 1, n_steps=2 * per_epoch, n_warmup=round(0.5 * per_epoch), schedule="cosine")
    rates = sorted({group["lr"] for group in stepper.optimiser.param_groups})
    assert rates == pytest.approx([0.01 * expected, 0.1 * expected])
    assert stepper.lr == pytest.approx(0.1 * expected)


def test_a_frozen_backbone_trains_on_features_and_asks_for_no_pictures() -> None:
    data = Pictures()
    stepper = build(Phase(epochs=2, lr=0.1, trains=HEAD_ONLY), cached=True, data=data)
    stepper.train_epoch(1)
    assert data.calls == ["features"]
    assert all(key.startswith("head.") for key in stepper.judged_state())


def test_each_epoch_sees_its_own_view_of_the_features() -> None:
    stepper = build(Phase(epochs=3, lr=1e-9, trains=HEAD_ONLY), cached=True, class_weighting=False, ema_decay=0.0)
    stepper.network.head[2].p = 0.0  # no dropout: the loss depends on the view alone
    losses = [stepper.train_epoch(epoch)[0] for epoch in (1, 2, 3)]
    assert losses[0] == pytest.approx(losses[2], abs=1e-6)
    assert losses[0] != pytest.approx(losses[1], abs=1e-6)


def test_features_are_shuffled_anew_in_each_epoch() -> None:
    stepper = build(Phase(epochs=3, lr=0.1, trains=HEAD_ONLY), cached=True)
    first, again, third = (torch.cat([inputs for inputs, _ in stepper._inputs(epoch)]) for epoch in (1, 1, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, third), "of the same view"
    assert torch.equal(first.sum(1).sort().values, third.sum(1).sort().values)


def test_an_epoch_is_the_same_whatever_came_before_it() -> None:
    one, other = build(ema_decay=0.0), build(ema_decay=0.0)
    torch.rand(100)
    assert one.train_epoch(1) == other.train_epoch(1)


def test_the_last_batch_counts_as_much_as_its_images() -> None:
    stepper = build(Phase(epochs=1, lr=1e-9), data=Pictures(batch_size=19), class_weighting=False)
    loss, accuracy = stepper.train_epoch(1)
    assert 0 < loss < math.inf
    assert accuracy * 20 == pytest.approx(round(accuracy * 20), abs=1e-5)


def test_averaging_warms_up_from_the_first_step() -> None:
    stepper = build(ema_decay=0.99)
    inputs, labels = stepper.data.images, torch.from_numpy(stepper.data.labels).float()
    raw, averaged = [], []
    for _ in range(2):
        stepper._step(inputs, labels)
        raw.append(stepper.network.head[0].weight.detach().clone())
        averaged.append(stepper.judged.head[0].weight.clone())
    assert torch.equal(averaged[0], raw[0]), "random weights are forgotten at once"
    decay = 1 - 2 ** (-2 / 3)
    torch.testing.assert_close(averaged[1], decay * averaged[0] + (1 - decay) * raw[1])


def test_averaged_weights_are_handed_to_the_network_at_the_end() -> None:
    stepper = build(ema_decay=0.9)
    stepper.train_epoch(1)
    averaged = {key: value.clone() for key, value in stepper.judged_state().items()}
    assert any(not torch.equal(value, averaged[key]) for key, value in stepper.network.state_dict().items())
    stepper.finish()
    assert all(torch.equal(value, averaged[key]) for key, value in stepper.network.state_dict().items())


def test_a_weight_that_left_the_numbers_is_noticed() -> None:
    stepper = build()
    assert stepper.is_finite
    stepper.network.head[0].weight.data[0, 0] = math.inf
    assert not stepper.is_finite


# Compiled steps


def test_compiled_steps_learn_the_same_and_leave_the_state_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    compile_it = partial(torch.compile, backend="aot_eager")  # Dynamo and autograd without a C++ compiler behind them

    def traced(network: Any) -> Any:
        compiled = compile_it(network)
        return lambda images: (sizes.append(len(images)), compiled(images))[1]

    plain = build()
    with monkeypatch.context() as patch:
        patch.setattr(stepper_module.torch, "compile", traced)
        compiled = build(compile=True)
    np.testing.assert_allclose(compiled.train_epoch(1), plain.train_epoch(1), rtol=1e-5)
    assert sizes == [6, 6, 6], "the last batch, of two, is not worth a graph of its own"
    assert compiled.state().keys() == plain.state().keys()


def test_a_network_that_cannot_be_compiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any, inputs: Any) -> None:
        raise ValueError("no compiler")

    compiled = torch.compile(build_network(), backend=broken)
    monkeypatch.setattr(torch, "compile", lambda _: compiled)
    with pytest.raises(SettingsError, match=r"compile=true: this network cannot be compiled.*Leave compile=false"):
        build(compile=True).train_epoch(1)


# Half precision


@pytest.mark.parametrize(("trains", "cached"), [(EVERYTHING, False), (HEAD_ONLY, True)])
def test_bfloat16_steps_keep_weights_and_state_in_float32(trains: tuple[str, ...], cached: bool) -> None:
    stepper = build(Phase(epochs=1, lr=0.02, trains=trains), cached=cached, amp=True)
    loss, _ = stepper.train_epoch(1)
    assert math.isfinite(loss)
    floating = [value for value in stepper.state().values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}


def test_bfloat16_is_used_and_learns_nearly_the_same() -> None:
    losses = [[build(amp=amp).train_epoch(1)[0]] for amp in (False, True)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
