"""Training in two phases: order, resuming, saved weights, early stopping, the loss, and errors."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from muralab.errors import DivergedError, MemoryExceededError, SettingsError
from muralab.training.checkpoint import read_tensors
from muralab.training.network import Network
from muralab.training.phase_trainer import PhaseTrainer, TrainerSettings
from muralab.training.phases import HEAD_ONLY, Phase
from muralab.training.trainer import LAST, PREVIOUS, EpochResult, best_name, train, trained_state
from tests.training.conftest import TinyDataset, build_network

OBJECTIVE = "val_study_auroc"
FROZEN_FIRST = {"upper": Phase(epochs=2, lr=0.02, trains=HEAD_ONLY), "full": Phase(epochs=3, lr=0.02, warmup_epochs=1)}
FROM_SCRATCH = {"upper": Phase(epochs=1, lr=0.01), "full": Phase(epochs=2, lr=0.02)}
HEAD_LAST = {"upper": Phase(epochs=1, lr=0.01), "full": Phase(epochs=2, lr=0.02, trains=HEAD_ONLY)}
PHASES = {"frozen first": FROZEN_FIRST, "from scratch": FROM_SCRATCH, "head last": HEAD_LAST}


def class_distance(data: TinyDataset) -> Callable[..., dict[str, float]]:
    """Validation by the distance between the mean logits of the classes: it depends on every weight."""

    def validate(network: Network, pooled: torch.Tensor | None) -> dict[str, float]:
        network.eval()
        with torch.no_grad():
            logits = network(data.images) if pooled is None else network.head(pooled).flatten()
        labels = torch.from_numpy(data.labels).bool()
        return {OBJECTIVE: float(logits[labels].mean() - logits[~labels].mean())}

    return validate


def scores(*values: float) -> Callable[..., dict[str, float]]:
    left = iter(values)
    return lambda *_: {OBJECTIVE: next(left)}


def run(
    folder: Path,
    phases: Mapping[str, Phase] = FROZEN_FIRST,
    *,
    data: TinyDataset | None = None,
    validate: Any = None,
    stop_after: int | None = None,
    network: Network | None = None,
    **settings: Any,
) -> tuple[list[EpochResult], Network]:
    torch.set_num_threads(1)
    data, network = data or TinyDataset(), network or build_network()
    epochs = train(
        network,
        phases,
        data,
        settings=TrainerSettings(**settings),
        validate=validate or class_distance(data),
        folder=folder,
    )
    with closing(epochs):
        return list(islice(epochs, stop_after)), network


def build_channels_last() -> Network:
    """A network in channels_last, with a convolution whose weights have another memory layout in that format."""
    network = build_network()
    network.backbone.append(torch.nn.Conv2d(6, 6, 3))  # type: ignore[operator]
    return network.to(memory_format=torch.channels_last)


def plain(results: list[EpochResult]) -> list[EpochResult]:
    return [dataclasses.replace(result, seconds=0.0) for result in results]


def same_state(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


# Order


def test_epochs_are_yielded_in_order(tmp_path: Path) -> None:
    results, _ = run(tmp_path)
    assert [(r.phase, r.epoch, r.global_epoch) for r in results] == [
        ("upper", 1, 1), ("upper", 2, 2), ("full", 1, 3), ("full", 2, 4), ("full", 3, 5)
    ]  # fmt: skip
    assert [r.ends_phase for r in results] == [False, True, False, False, True]


def test_a_phase_of_zero_epochs_is_skipped(tmp_path: Path) -> None:
    phases = {"upper": dataclasses.replace(FROZEN_FIRST["upper"], epochs=0), "full": FROZEN_FIRST["full"]}
    results, _ = run(tmp_path, phases)
    assert [(r.phase, r.global_epoch) for r in results] == [("full", 1), ("full", 2), ("full", 3)]


def test_features_are_requested_once_and_batches_in_the_full_phase(tmp_path: Path) -> None:
    data = TinyDataset()
    run(tmp_path, data=data)
    assert data.calls == ["features", "full 1", "full 2", "full 3"]


def test_updated_batchnorm_statistics_forbid_cached_features(tmp_path: Path) -> None:
    data = TinyDataset()
    upper = dataclasses.replace(FROZEN_FIRST["upper"], frozen_batchnorm="train")
    run(tmp_path, {**FROZEN_FIRST, "upper": upper}, data=data, stop_after=2)
    assert data.calls == ["upper 1", "upper 2"]


def test_the_frozen_phase_does_not_change_the_backbone(tmp_path: Path) -> None:
    before = build_network().backbone.state_dict()
    results, network = run(tmp_path, stop_after=2)
    assert results[-1].ends_phase
    assert same_state(before, network.backbone.state_dict())


def test_the_rate_of_an_epoch_is_reported(tmp_path: Path) -> None:
    results, _ = run(tmp_path, {"full": Phase(epochs=3, lr=0.5, schedule="constant", warmup_epochs=1)})
    assert results[0].lr < 0.5
    assert [r.lr for r in results[1:]] == [0.5, 0.5]


def test_metrics_are_floats_by_name(tmp_path: Path) -> None:
    results, _ = run(tmp_path)
    metrics = results[2].metrics()
    assert metrics["phase"] == 2.0
    assert {"train_loss", "train_accuracy", OBJECTIVE, "lr"} <= set(metrics)
    assert all(isinstance(value, float) for value in metrics.values())


# Resuming


@pytest.mark.parametrize("kind", PHASES)
@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
def test_resuming_after_any_epoch_is_bitwise_identical(tmp_path: Path, kind: str, ema_decay: float) -> None:
    whole, network = run(tmp_path / "whole", PHASES[kind], ema_decay=ema_decay)
    for stop in range(1, len(whole)):
        folder = tmp_path / str(stop)
        run(folder, PHASES[kind], stop_after=stop, ema_decay=ema_decay)
        again, resumed = run(folder, PHASES[kind], ema_decay=ema_decay)
        assert plain(again) == plain(whole), stop
        assert same_state(network.state_dict(), resumed.state_dict()), stop
        for phase in PHASES[kind]:
            assert same_state(trained_state(folder, phase), trained_state(tmp_path / "whole", phase)), stop


@pytest.mark.parametrize("kind", PHASES)
def test_resuming_in_channels_last_is_bitwise_identical(tmp_path: Path, kind: str) -> None:
    whole, network = run(tmp_path / "whole", PHASES[kind], network=build_channels_last())
    for stop in range(1, len(whole)):
        folder = tmp_path / str(stop)
        run(folder, PHASES[kind], stop_after=stop, network=build_channels_last())
        again, resumed = run(folder, PHASES[kind], network=build_channels_last())
        assert plain(again) == plain(whole), stop
        assert same_state(network.state_dict(), resumed.state_dict()), stop


def test_resuming_after_every_epoch_is_bitwise_identical(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    for stop in range(1, len(whole) + 1):
        results, _ = run(tmp_path / "steps", stop_after=stop)
    assert plain(results) == plain(whole)


def test_a_finished_training_only_repeats_its_results(tmp_path: Path) -> None:
    whole, _ = run(tmp_path)
    data = TinyDataset()
    again, _ = run(tmp_path, data=data, validate=lambda *_: pytest.fail("validated again"))
    assert again == whole
    assert not [call for call in data.calls if call != "features"]


def flip(path: Path) -> None:
    """Change one byte of a tensor."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("damaged", [[LAST], [LAST, PREVIOUS], [PREVIOUS]])
def test_a_damaged_checkpoint_costs_an_epoch_and_changes_nothing(
    tmp_path: Path, damage: Callable[[Path], None], damaged: list[str]
) -> None:
    whole, network = run(tmp_path / "whole")
    run(tmp_path / "part", stop_after=3)
    for name in damaged:
        damage(tmp_path / "part" / name)
    again, resumed = run(tmp_path / "part")
    assert plain(again) == plain(whole)
    assert same_state(network.state_dict(), resumed.state_dict())


def test_results_depend_on_the_seed_only(tmp_path: Path) -> None:
    one, same, other = (run(tmp_path / name, seed=seed)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert plain(one) == plain(same)
    assert plain(one) != plain(other)


# Saved weights


def test_the_best_epoch_of_each_phase_is_saved(tmp_path: Path) -> None:
    results, _ = run(tmp_path, validate=scores(0.7, 0.6, 0.5, 0.9, 0.8))
    assert [r.best for r in results] == [True, False, True, True, False]
    assert read_tensors(tmp_path / best_name("upper"))[1] == {"epoch": 1, "score": 0.7}
    assert read_tensors(tmp_path / best_name("full"))[1] == {"epoch": 2, "score": 0.9}


def test_an_equal_score_does_not_replace_the_best(tmp_path: Path) -> None:
    results, _ = run(tmp_path, FROM_SCRATCH, validate=scores(0.5, 0.5, 0.5))
    assert [r.best for r in results] == [True, True, False]


def test_a_nan_score_is_never_better(tmp_path: Path) -> None:
    results, _ = run(tmp_path, {"full": Phase(epochs=3, lr=0.01)}, validate=scores(math.nan, 0.1, math.nan))
    assert [r.best for r in results] == [True, True, False]


def test_after_a_frozen_phase_only_the_head_is_saved(tmp_path: Path) -> None:
    run(tmp_path, stop_after=2)
    assert {name.split(".")[0] for name in trained_state(tmp_path, "upper")} == {"head"}
    assert not any("backbone" in name for name in read_tensors(tmp_path / LAST)[0])


def test_a_head_phase_after_a_full_one_saves_the_backbone_too(tmp_path: Path) -> None:
    _, network = run(tmp_path, HEAD_LAST)
    assert set(trained_state(tmp_path, "full")) == set(network.state_dict())


def test_missing_trained_weights_are_reported(tmp_path: Path) -> None:
    run(tmp_path, stop_after=2)
    with pytest.raises(SettingsError, match="contains no weights of the full phase: it has finished no epoch there"):
        trained_state(tmp_path, "full")


def test_without_averaging_the_raw_weights_are_evaluated(tmp_path: Path) -> None:
    evaluated: list[Network] = []

    def validate(network: Network, _: Any) -> dict[str, float]:
        evaluated.append(network)
        return {OBJECTIVE: 0.5}

    _, network = run(tmp_path, FROM_SCRATCH, validate=validate, ema_decay=0.0)
    assert all(one is network for one in evaluated)


def test_averaged_weights_differ_from_the_raw_ones(tmp_path: Path) -> None:
    run(tmp_path, FROM_SCRATCH, ema_decay=0.9, stop_after=1)
    tensors, _ = read_tensors(tmp_path / LAST)
    assert not torch.equal(tensors["module/head.0.weight"], tensors["ema/head.0.weight"])


# Stopping early


def test_a_phase_ends_when_its_patience_is_exhausted(tmp_path: Path) -> None:
    phases = {"full": Phase(epochs=9, lr=0.01, patience=2)}
    results, _ = run(tmp_path, phases, validate=scores(0.5, 0.9, 0.8, 0.7, 0.95))
    assert [r.epoch for r in results] == [1, 2, 3, 4]
    assert results[-1].ends_phase


def test_early_stopping_of_the_first_phase_starts_the_second(tmp_path: Path) -> None:
    phases = {"upper": Phase(epochs=9, lr=0.01, patience=1), "full": Phase(epochs=1, lr=0.01)}
    results, _ = run(tmp_path, phases, validate=scores(0.5, 0.4, 0.3))
    assert [r.phase for r in results] == ["upper", "upper", "full"]


def test_patience_is_kept_when_resuming(tmp_path: Path) -> None:
    phases = {"upper": Phase(epochs=9, lr=0.01, patience=1), "full": Phase(epochs=1, lr=0.01)}
    run(tmp_path, phases, validate=scores(0.5, 0.4), stop_after=2)
    results, _ = run(tmp_path, phases, validate=scores(0.3))
    assert [r.phase for r in results] == ["upper", "upper", "full"]


# The loss


def test_the_reported_loss_is_unweighted(tmp_path: Path) -> None:
    phases = {"full": Phase(epochs=1, lr=1e-9)}
    losses = [
        run(tmp_path / str(on), phases, class_weighting=on, ema_decay=0.0)[0][0].train_loss for on in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_class_weights_balance_the_classes(dataset: TinyDataset) -> None:
    trainer = PhaseTrainer(build_network(), "full", Phase(epochs=1, lr=0.1), dataset, TrainerSettings(), features=False)
    share = dataset.labels.mean()
    weights = trainer.class_weights.tolist()
    assert weights == pytest.approx([2 * share, 2 * (1 - share)])
    assert weights[1] * share == pytest.approx(weights[0] * (1 - share))


def test_class_weighting_changes_the_weights(tmp_path: Path) -> None:
    states = [run(tmp_path / str(on), FROM_SCRATCH, class_weighting=on)[1].state_dict() for on in (True, False)]
    assert not same_state(*states)


def gradient(data: TinyDataset, clip_norm: float) -> torch.Tensor:
    """Gradient that the optimiser received in a first step on all images, [number of weights]."""
    trainer = PhaseTrainer(
        build_network(), "full", Phase(epochs=1, lr=0.1), data, TrainerSettings(clip_norm=clip_norm), features=False
    )
    trainer.network.eval()  # no dropout
    trainer._step(data.images, torch.from_numpy(data.labels).float())
    first_moments = [trainer.optimiser.state[weight]["exp_avg"] for weight in trainer.network.parameters()]
    return torch.cat([moment.flatten() for moment in first_moments]) / (1 - 0.9)


def test_a_long_gradient_is_clipped_and_keeps_its_direction(dataset: TinyDataset) -> None:
    whole = gradient(dataset, 0.0)
    length = float(whole.norm())
    clipped = gradient(dataset, length / 4)
    assert float(clipped.norm()) == pytest.approx(length / 4, rel=1e-4)
    torch.testing.assert_close(clipped, whole / 4, rtol=1e-4, atol=1e-8)


def test_a_short_gradient_is_not_clipped(dataset: TinyDataset) -> None:
    whole = gradient(dataset, 0.0)
    assert torch.equal(gradient(dataset, 4 * float(whole.norm())), whole)


# Errors


def _corrupt(value: float) -> Callable[..., dict[str, float]]:
    """A validation that leaves a non-finite weight behind, as a training step may."""

    def validate(network: Network, _: Any) -> dict[str, float]:
        network.head[0].weight.data[0, 0] = value
        return {OBJECTIVE: 0.5}

    return validate


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_is_reported_with_the_rate(tmp_path: Path, value: float) -> None:
    phases = {"full": Phase(epochs=3, lr=0.02)}
    with pytest.raises(DivergedError, match=r"nan in epoch 2 of the full phase at full.lr=0.02. Lower full.lr"):
        run(tmp_path, phases, validate=_corrupt(value), ema_decay=0.0)
    assert len(read_tensors(tmp_path / LAST)[1]["history"]) == 1


def test_weights_made_nan_by_the_last_step_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = PhaseTrainer._step

    def corrupt(trainer: PhaseTrainer, *batch: torch.Tensor) -> torch.Tensor:
        sums = step(trainer, *batch)
        trainer.network.head[0].weight.data.fill_(math.nan)
        return sums

    monkeypatch.setattr(PhaseTrainer, "_step", corrupt)
    with pytest.raises(DivergedError, match="epoch 1 of the full phase"):
        run(tmp_path, {"full": Phase(epochs=1, lr=0.02)}, data=TinyDataset(batch_size=20))


def test_an_unknown_objective_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"objective=val_aurok: expected one of {OBJECTIVE}"):
        run(tmp_path, objective="val_aurok")


def test_an_out_of_memory_error_gives_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(PhaseTrainer, "_step", step)
    message = r"Tried to allocate 2.00 GiB.*smaller batch_size or image_size, or a larger gpus_per_trial"
    with pytest.raises(MemoryExceededError, match=message):
        run(tmp_path)


def test_stopping_closes_the_batches(tmp_path: Path) -> None:
    closed: list[str] = []

    class Watched(TinyDataset):
        def batches(self, phase: str, epoch: int) -> Any:
            try:
                yield from super().batches(phase, epoch)
            finally:
                closed.append(f"{phase} {epoch}")

    run(tmp_path, FROM_SCRATCH, data=Watched(), stop_after=2)
    assert closed == ["upper 1", "full 1"]
