"""How much of a GPU does training use?

    python -m bench.gpu              (minutes on a GPU; without one the rows show "not measured")

InceptionV3 at the recipe's own size. Ours: an epoch of PhaseTrainer with real input: cache, augmentation in threads,
pinned copies, bfloat16, channels_last, fused AdamW, clipping, weight averaging. Its own step rate: the same step over a
batch that stays on the device. Plain: the same network in float32 without any of these. The share of the peak is the
FLOP/s of the model over those of a large bfloat16 matrix product on this device.
"""

from __future__ import annotations

import copy
import functools
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bench.common import Options, Row, interleave, ratios, run, seconds
from bench.data import CachedImages, open_images
from muralab.data.loader import Batch
from muralab.recipe_loader import load_recipe
from muralab.training.network import Network
from muralab.training.phase_trainer import PhaseTrainer, TrainerSettings
from muralab.training.phases import freeze

RECIPE = "inception_add_gate"
OF_STEP_RATE, OVER_FLOAT32 = 0.90, 1.5
MATRIX = 8192


class ResidentImages(CachedImages):
    """One batch that stays on the device, repeated for a whole epoch."""

    def __init__(self, images: CachedImages, device: str) -> None:
        super().__init__(images.cache, images.table, images.batch_size)
        one = next(images.batches("full", 0))
        self.batch = Batch(one.images.to(device), one.labels.to(device), one.rows)

    def batches(self, phase: str, epoch: int):  # type: ignore[no-untyped-def]
        """The same batch, repeated."""
        del phase, epoch
        for _ in range(len(self.labels) // self.batch_size):
            yield self.batch


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def train(trainer: PhaseTrainer, device: str) -> None:
    trainer.train_epoch(1)
    wait(device)


def plain_epoch(network: Network, images: ResidentImages, device: str) -> Callable[[], None]:
    """Build a float32 loop over the resident batch, with the default memory format and optimizer."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(network.parameters())

    def epoch() -> None:
        for batch in images.batches("full", 0):
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(network(batch.images), batch.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        wait(device)

    return epoch


def peak_flops(device: str, side: int) -> float:
    """FLOP/s of a bfloat16 matrix product."""
    left = torch.randn(side, side, device=device, dtype=torch.bfloat16)

    def product() -> None:
        left @ left
        wait(device)

    product()
    return 2 * side**3 / min(seconds(product) for _ in range(10))


def step_flops(network: Network, images: torch.Tensor) -> float:
    """FLOPs of the forward and backward pass of one training step."""
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    network.zero_grad()
    return float(counter.get_total_flops())


def measure_on(device: str, size: int, batch_size: int, n_batches: int, rounds: int, matrix: int) -> list[Row]:
    """Measure all three loops in turn on one device."""
    recipe = load_recipe(RECIPE)
    network = recipe.build(image_size=size, **recipe.model).to(device)
    freeze(network, recipe.full)
    network = network.to(memory_format=torch.channels_last)
    settings = TrainerSettings(device=device, amp=True, ema_decay=recipe.ema_decay, clip_norm=recipe.clip_norm)
    with tempfile.TemporaryDirectory() as folder:
        workers = max(1, len(os.sched_getaffinity(0)) - 1)
        images = open_images(Path(folder), n_batches * batch_size, size, batch_size, workers=workers)
        resident = ResidentImages(images, device)
        flops = step_flops(network, resident.batch.images)
        ours, own = (
            PhaseTrainer(copy.deepcopy(network), "full", recipe.full, data, settings, features=False)
            for data in (images, resident)
        )
        sides: dict[str, Callable[[], None]] = {
            "ours": functools.partial(train, ours, device),
            "own": functools.partial(train, own, device),
            "plain": plain_epoch(network, resident, device),
        }
        found = interleave({name: functools.partial(seconds, work) for name, work in sides.items()}, rounds)
    rates = {name: [n_batches * batch_size / time_s for time_s in times] for name, times in found.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    share = medians["ours"] / batch_size * flops / peak_flops(device, matrix)
    memory_gib = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    what, rate = f"gpu: {name}, {size} px, batch {batch_size}", f"{medians['ours']:.0f} images/s"
    note = f"{memory_gib:.1f} GiB peak memory (all three loops), {share:.0%} of the measured bfloat16 peak"
    own_ratio, own_spread = ratios(rates["ours"], rates["own"])
    plain_ratio, plain_spread = ratios(rates["ours"], rates["plain"])
    return [
        Row(
            what=f"{what}: of its own step rate",
            ours=rate,
            theirs=f"resident batch {medians['own']:.0f}/s",
            ratio=own_ratio,
            spread=own_spread,
            at_least=OF_STEP_RATE,
            note=note,
        ),
        Row(
            what=f"{what}: over a plain float32 loop",
            ours=rate,
            theirs=f"plain loop {medians['plain']:.0f}/s",
            ratio=plain_ratio,
            spread=plain_spread,
            at_least=OVER_FLOAT32,
        ),
    ]


def measure(options: Options) -> list[Row]:
    """Measure at 299 px on the first GPU; without one return rows without a measurement."""
    if torch.cuda.is_available():
        return measure_on("cuda", 299, 64, 60 if options.full else 20, 9, MATRIX)
    targets = {
        "of its own step rate": ("resident batch", OF_STEP_RATE),
        "over a plain float32 loop": ("plain loop", OVER_FLOAT32),
    }
    return [
        Row(what=f"gpu: InceptionV3 at 299 px: {what}", ours="", theirs=theirs, ratio=math.nan, at_least=least)
        for what, (theirs, least) in targets.items()
    ]


if __name__ == "__main__":
    run(measure, __doc__)
