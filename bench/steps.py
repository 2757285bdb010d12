"""How much time does a training epoch take beyond the work of the network itself?

    python -m bench.steps            (about a minute on one core)

Ours: an epoch of the full phase in PhaseTrainer, with batches read from the pixel cache, augmented and normalized, and
with metrics. Theirs: a bare PyTorch loop over float tensors that are already augmented, normalized and in memory, with
the same network, loss, AdamW, clipping and weight averaging, in float32, and nothing else. Ours is
measured in bfloat16, too. One thread, as in a trial; measured as CPU time, which other work on the
machine affects least.
"""

from __future__ import annotations

import copy
import functools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional

from bench.common import Options, Row, cpu_seconds, interleave, ratios, run
from bench.data import CachedImages, open_images
from muralab.recipe_loader import load_recipe
from muralab.training.device import gains_from_bfloat16
from muralab.training.network import Network
from muralab.training.phase_trainer import PhaseTrainer, TrainerSettings
from muralab.training.phases import freeze, parameter_groups

RECIPE = "inception_add_gate"
TARGETS = {"float32": 1.05, "bfloat16": 0.70}
ROUNDS = 9
DECAY, CLIP_NORM = 0.99, 1.0


def bare_epoch(network: Network, data: CachedImages) -> Callable[[], None]:
    """Build a handwritten loop over tensors in memory."""
    network.train()
    batches = [
        (network.prepare(batch.images).contiguous(memory_format=torch.channels_last), batch.labels)
        for batch in data.batches("full", 0)
    ]
    optimizer = torch.optim.AdamW(parameter_groups(network, load_recipe(RECIPE).full), fused=True)
    average = ModelEmaV3(network, decay=DECAY, use_warmup=True)
    parameters = list(network.parameters())

    def epoch() -> None:
        for step, (pixels, labels) in enumerate(batches):
            logits = network.classify(network.backbone(pixels))
            loss = functional.binary_cross_entropy_with_logits(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, CLIP_NORM, foreach=True)
            optimizer.step()
            average.update(network, step=step)

    return epoch


def measure_at(size: int, batch_size: int, n_batches: int, rounds: int) -> list[Row]:
    """Measure all loops on the same images, in turn."""
    recipe = load_recipe(RECIPE)
    torch.manual_seed(0)
    network = recipe.build(image_size=size, **recipe.model).to(memory_format=torch.channels_last)
    freeze(network, recipe.full)
    with tempfile.TemporaryDirectory() as folder:
        data = open_images(Path(folder), n_batches * batch_size, size, batch_size)
        epochs = {precision: build_epoch(copy.deepcopy(network), data, precision) for precision in TARGETS}
        sides = {**epochs, "bare": bare_epoch(network, data)}
        times = interleave({name: functools.partial(cpu_seconds, epoch) for name, epoch in sides.items()}, rounds)
    per_image = {name: 1000 * statistics.median(values) / (n_batches * batch_size) for name, values in times.items()}
    rows = []
    for precision, target in TARGETS.items():
        ratio, spread = ratios(times[precision], times["bare"])
        gains = precision == "float32" or gains_from_bfloat16("cpu")
        rows.append(
            Row(
                what=f"steps: an epoch of InceptionV3 in {precision} at {size} px, batch {batch_size}",
                ours=f"{per_image[precision]:.2f} ms per image",
                theirs=f"bare loop in float32 {per_image['bare']:.2f} ms",
                ratio=ratio,
                spread=spread,
                at_most=target if gains else None,
                note=""
                if gains
                else "no target: this processor does not gain from bfloat16, and precision=auto is float32",
            )
        )
    return rows


def build_epoch(network: Network, data: CachedImages, precision: str) -> Callable[[], object]:
    """An epoch of `PhaseTrainer`."""
    settings = TrainerSettings(ema_decay=DECAY, clip_norm=CLIP_NORM, amp=precision == "bfloat16")
    trainer = PhaseTrainer(network, "full", load_recipe(RECIPE).full, data, settings, features=False)
    return lambda: trainer.train_epoch(1)


def measure(options: Options) -> list[Row]:
    """Measure at the size of the demo; with --full also at 160 px."""
    torch.set_num_threads(1)
    rows = measure_at(112, 16, 6, ROUNDS)
    return [*rows, *measure_at(160, 16, 12, ROUNDS)] if options.full else rows


if __name__ == "__main__":
    run(measure, __doc__)
