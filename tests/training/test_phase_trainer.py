"""Training steps of one phase: rates, cached features, averaged weights, compilation and half precision."""

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
from muralab.training import phase_trainer
from muralab.training.phase_trainer import PhaseTrainer, TrainerSettings, rate_factor
from muralab.training.phases import EVERYTHING, HEAD_ONLY, Phase, freeze
from tests.training.conftest import TinyDataset, build_network


def build(
    phase: Phase | None = None, *, cached: bool = False, data: TinyDataset | None = None, **settings: Any
) -> PhaseTrainer:
    torch.set_num_threads(1)
    network, phase = build_network(), phase or Phase(epochs=2, lr=0.02)
    freeze(network, phase)
    return PhaseTrainer(network, "full", phase, data or TinyDataset(), TrainerSettings(**settings), features=cached)


@given(st.integers(0, 5000), st.integers(1, 1000), st.integers(0, 2000), st.sampled_from(["cosine", "constant"]))
@example(0, 10, 5, "cosine")
@example(10, 10, 0, "cosine")
def test_the_rate_stays_between_its_peak_and_a_hundredth_of_it(
    step: int, n_steps: int, n_warmup: int, schedule: str
) -> None:
    factor = rate_factor(step, n_steps=n_steps, n_warmup=n_warmup, schedule=schedule)
    assert 0.01 - 1e-12 <= factor <= 1


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_reported_rate_is_that_of_the_head(factor: float) -> None:
    trainer = build(Phase(epochs=1, lr=0.1, schedule="constant", warmup_epochs=0, backbone_lr_factor=factor))
    assert trainer.lr == pytest.approx(0.1)


def test_rates_follow_the_schedule_of_the_whole_phase() -> None:
    trainer = build(Phase(epochs=2, lr=0.1, warmup_epochs=0.5, backbone_lr_factor=0.1))
    trainer.train_epoch(1)
    per_epoch = trainer.n_steps
    expected = rate_factor(per_epoch - 1, n_steps=2 * per_epoch, n_warmup=round(0.5 * per_epoch), schedule="cosine")
    rates = sorted({group["lr"] for group in trainer.optimiser.param_groups})
    assert rates == pytest.approx([0.01 * expected, 0.1 * expected])
    assert trainer.lr == pytest.approx(0.1 * expected)


def test_with_a_frozen_backbone_only_features_are_requested() -> None:
    data = TinyDataset()
    trainer = build(Phase(epochs=2, lr=0.1, trains=HEAD_ONLY), cached=True, data=data)
    trainer.train_epoch(1)
    assert data.calls == ["features"]
    assert all(key.startswith("head.") for key in trainer.evaluated_state())


def test_epochs_cycle_through_the_views_of_the_features() -> None:
    trainer = build(Phase(epochs=3, lr=1e-9, trains=HEAD_ONLY), cached=True, class_weighting=False, ema_decay=0.0)
    trainer.network.head[2].p = 0.0  # no dropout: the loss depends on the view alone
    losses = [trainer.train_epoch(epoch)[0] for epoch in (1, 2, 3)]
    assert losses[0] == pytest.approx(losses[2], abs=1e-6)
    assert losses[0] != pytest.approx(losses[1], abs=1e-6)


def test_features_are_shuffled_differently_in_each_epoch() -> None:
    trainer = build(Phase(epochs=3, lr=0.1, trains=HEAD_ONLY), cached=True)
    first, again, third = (torch.cat([inputs for inputs, _ in trainer._inputs(epoch)]) for epoch in (1, 1, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, third)
    assert torch.equal(first.sum(1).sort().values, third.sum(1).sort().values)


def test_an_epoch_does_not_depend_on_earlier_random_numbers() -> None:
    one, other = build(ema_decay=0.0), build(ema_decay=0.0)
    torch.rand(100)
    assert one.train_epoch(1) == other.train_epoch(1)


def test_the_last_batch_is_weighted_by_its_size() -> None:
    trainer = build(Phase(epochs=1, lr=1e-9), data=TinyDataset(batch_size=19), class_weighting=False)
    loss, accuracy = trainer.train_epoch(1)
    assert 0 < loss < math.inf
    assert accuracy * 20 == pytest.approx(round(accuracy * 20), abs=1e-5)


def test_averaging_starts_from_the_weights_of_the_first_step() -> None:
    trainer = build(ema_decay=0.99)
    inputs, labels = trainer.data.images, torch.from_numpy(trainer.data.labels).float()
    raw, averaged = [], []
    for _ in range(2):
        trainer._step(inputs, labels)
        raw.append(trainer.network.head[0].weight.detach().clone())
        averaged.append(trainer.evaluated.head[0].weight.clone())
    assert torch.equal(averaged[0], raw[0])
    decay = 1 - 2 ** (-2 / 3)
    torch.testing.assert_close(averaged[1], decay * averaged[0] + (1 - decay) * raw[1])


def test_finish_copies_the_averaged_weights_into_the_network() -> None:
    trainer = build(ema_decay=0.9)
    trainer.train_epoch(1)
    averaged = {key: value.clone() for key, value in trainer.evaluated_state().items()}
    assert any(not torch.equal(value, averaged[key]) for key, value in trainer.network.state_dict().items())
    trainer.finish()
    assert all(torch.equal(value, averaged[key]) for key, value in trainer.network.state_dict().items())


def test_an_infinite_weight_is_detected() -> None:
    trainer = build()
    assert trainer.is_finite
    trainer.network.head[0].weight.data[0, 0] = math.inf
    assert not trainer.is_finite


# Compiled steps


def test_compiled_steps_give_the_same_results_and_the_same_state(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    compile_it = partial(torch.compile, backend="aot_eager")  # Dynamo and autograd, without a C++ compiler

    def traced(network: Any) -> Any:
        compiled = compile_it(network)
        return lambda images: (sizes.append(len(images)), compiled(images))[1]

    plain = build()
    with monkeypatch.context() as patch:
        patch.setattr(phase_trainer.torch, "compile", traced)
        compiled = build(compile=True)
    np.testing.assert_allclose(compiled.train_epoch(1), plain.train_epoch(1), rtol=1e-5)
    assert sizes == [6, 6, 6], "the last batch, of two images, is not compiled"
    assert compiled.state().keys() == plain.state().keys()


def test_a_failing_compilation_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any, inputs: Any) -> None:
        raise ValueError("no compiler")

    compiled = torch.compile(build_network(), backend=broken)
    monkeypatch.setattr(torch, "compile", lambda _: compiled)
    with pytest.raises(SettingsError, match=r"compile=true: this network cannot be compiled.*Use compile=false"):
        build(compile=True).train_epoch(1)


# Half precision


@pytest.mark.parametrize(("trains", "cached"), [(EVERYTHING, False), (HEAD_ONLY, True)])
def test_bfloat16_steps_keep_weights_and_state_in_float32(trains: tuple[str, ...], cached: bool) -> None:
    trainer = build(Phase(epochs=1, lr=0.02, trains=trains), cached=cached, amp=True)
    loss, _ = trainer.train_epoch(1)
    assert math.isfinite(loss)
    floating = [value for value in trainer.state().values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}


def test_bfloat16_is_used_and_gives_nearly_the_same_loss() -> None:
    losses = [[build(amp=amp).train_epoch(1)[0]] for amp in (False, True)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)


# A batch that memory does not hold


def limit_memory(monkeypatch: pytest.MonkeyPatch, largest: int) -> list[int]:
    """Let batches of more than `largest` images run out of memory; returns the sizes that were tried."""
    tried: list[int] = []
    logits = PhaseTrainer._logits

    def limited(self: PhaseTrainer, inputs: torch.Tensor) -> torch.Tensor:
        tried.append(len(inputs))
        if len(inputs) > largest:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logits(self, inputs)

    monkeypatch.setattr(PhaseTrainer, "_logits", limited)
    return tried


def test_a_batch_that_does_not_fit_is_computed_in_parts_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = limit_memory(monkeypatch, largest=2)
    trainer = build()
    loss, accuracy = trainer.train_epoch(1)
    assert trainer.batch_parts == 4
    assert tried[:6] == [6, 3, 2, 2, 2, 2]
    assert max(tried[3:]) == 2
    assert math.isfinite(loss)
    assert 0 <= accuracy <= 1


def test_the_gradients_of_the_parts_are_those_of_the_batch() -> None:
    images, labels = TinyDataset().images[:6], torch.tensor([1.0, 0, 0, 1, 0, 0])
    gradients = []
    for parts in (1, 2, 3):
        trainer = build()
        trainer.network.eval()
        trainer.batch_parts = parts
        sums = trainer._accumulate(images, labels)
        gradients.append([p.grad.clone() for group in trainer.optimiser.param_groups for p in group["params"]])
        assert sums[2] == 6
    for other in gradients[1:]:
        for one, same in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(one, same)


def test_a_single_image_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, largest=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        build().train_epoch(1)


def test_other_errors_are_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(PhaseTrainer, "_logits", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        build().train_epoch(1)
