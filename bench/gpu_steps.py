"""What makes a training step faster on a GPU, two trainings on one GPU, and a batch that its memory does not hold.

    python -m bench.gpu_steps        (two minutes on a GPU; on a CPU, --full runs it once at tiny sizes)

Steps over a batch that stays on the device, each compared with the step that `train` does (bfloat16, channels_last,
fused AdamW, clipping, averaged weights): in float32; with the default memory format; compiled (`compile=true`); and,
which the platform does not do, replayed as a CUDA graph. Two trainings: two processes at once against one after the
other, whole epochs with real input. Memory: a batch of four times what fits is trained in parts.
"""

from __future__ import annotations

import copy
import functools
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from bench.common import Options, Row, interleave, ratios, run, seconds
from bench.data import CachedImages, open_images
from bench.gpu import ResidentImages, wait
from muralab.recipe_loader import load_recipe
from muralab.training.network import Network
from muralab.training.phase_trainer import PhaseTrainer, TrainerSettings
from muralab.training.phases import freeze

RECIPES = ("inception_add_gate", "cnn")
LIMIT_GIB = 4.0
"""Of memory, for the batch that does not fit: filling a large GPU would take long."""
START = "import sys; from bench.gpu_steps import train_alone; train_alone(*sys.argv[1:])"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured."""

    device: str
    size: int | None
    """Of images, in px; None: the recipe's own."""
    n_batches: int
    rounds: int


ON_GPU = Scale(device="cuda", size=None, n_batches=30, rounds=5)
DRY = Scale(device="cpu", size=80, n_batches=1, rounds=1)


def build_network(recipe_name: str, size: int, device: str) -> Network:
    """A recipe's network on a device, as its full phase trains it."""
    recipe = load_recipe(recipe_name)
    network = recipe.build(image_size=size, **recipe.model).to(device).to(memory_format=torch.channels_last)
    freeze(network, recipe.full)
    return network


def build_trainer(
    recipe_name: str, images: CachedImages, network: Network, device: str, *, amp: bool = True, compiles: bool = False
) -> PhaseTrainer:
    """The trainer of a recipe's full phase, with the recipe's own settings."""
    recipe = load_recipe(recipe_name)
    settings = TrainerSettings(
        device=device, amp=amp, ema_decay=recipe.ema_decay, clip_norm=recipe.clip_norm, compile=compiles
    )
    return PhaseTrainer(network, "full", recipe.full, images, settings, features=False)


def size_of(recipe_name: str, scale: Scale) -> int:
    """Of images, in px."""
    return scale.size or load_recipe(recipe_name).image_size


@contextmanager
def resident(n_batches: int, batch_size: int, size: int, device: str) -> Iterator[ResidentImages]:
    """Batches that are one and the same, on the device."""
    with tempfile.TemporaryDirectory() as folder:
        yield ResidentImages(open_images(Path(folder), n_batches * batch_size, size, batch_size), device)


def step_rows(recipe_name: str, scale: Scale) -> list[Row]:
    """One row for each way to compute a step."""
    size, batch_size = size_of(recipe_name, scale), load_recipe(recipe_name).batch_size
    network = build_network(recipe_name, size, scale.device)
    with resident(scale.n_batches, batch_size, size, scale.device) as images:

        def epoch_of(
            memory_format: torch.memory_format = torch.channels_last, *, amp: bool = True, compiles: bool = False
        ) -> Callable[[], None]:
            own = copy.deepcopy(network).to(memory_format=memory_format)
            trainer = build_trainer(recipe_name, images, own, scale.device, amp=amp, compiles=compiles)

            def epoch() -> None:
                trainer.train_epoch(1)
                wait(scale.device)

            return epoch

        ways: dict[str, Callable[[], None]] = {
            "ours": epoch_of(),
            "in float32": epoch_of(amp=False),
            "in the default memory format": epoch_of(torch.contiguous_format),
        }
        if scale.device == "cuda":
            ways["compiled"] = epoch_of(compiles=True)
            ways["as a CUDA graph"] = graph_epoch(copy.deepcopy(network), images)
        for work in ways.values():
            work()  # to warm up, and to compile
        timed = {name: functools.partial(seconds, work) for name, work in ways.items()}
        found = interleave(timed, scale.rounds)
    ours = statistics.median(found["ours"]) / scale.n_batches
    rows = []
    for name, times in found.items():
        if name != "ours":
            ratio, spread = ratios(times, found["ours"])
            rows.append(
                Row(
                    what=f"gpu: {place(scale.device)}, {recipe_name}: a step {name}, over ours",
                    ours=f"{1000 * statistics.median(times) / scale.n_batches:.2f} ms",
                    theirs=f"{1000 * ours:.2f} ms, batch {images.batch_size}",
                    ratio=ratio,
                    spread=spread,
                )
            )
    return rows


def place(device: str) -> str:
    """The device's name."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def graph_epoch(network: Network, images: ResidentImages) -> Callable[[], None]:
    """An epoch whose step (loss, gradients, clipping, AdamW; no averaged weights) is recorded once and replayed."""
    network.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, fused=True, capturable=True)
    batch = images.batch

    def step() -> None:
        optimiser.zero_grad(set_to_none=False)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = network(batch.images)
        functional.binary_cross_entropy_with_logits(logits.float(), batch.labels).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True, error_if_nonfinite=False)
        optimiser.step()

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # steps before the recording, on a stream of their own, as CUDA asks for
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def epoch() -> None:
        for _ in range(len(images.labels) // images.batch_size):
            graph.replay()
        wait("cuda")

    return epoch


def train_alone(recipe_name: str, device: str, size: str, n_batches: str, epochs: str) -> None:
    """Train in this process: prints a line when it is ready, waits for one on standard input, prints one at the end."""
    batch_size = load_recipe(recipe_name).batch_size
    with tempfile.TemporaryDirectory() as folder:
        images = open_images(Path(folder), int(n_batches) * batch_size, int(size), batch_size, workers=4)
        trainer = build_trainer(recipe_name, images, build_network(recipe_name, int(size), device), device)
        trainer.train_epoch(1)
        wait(device)
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(epochs)):
            trainer.train_epoch(1)
        wait(device)
        print("done", flush=True)


def side_by_side_s(recipe_name: str, scale: Scale, size: int, number: int, epochs: int) -> float:
    """Seconds that a number of trainings take at once, from the start of their first step."""
    words = [recipe_name, scale.device, str(size), str(scale.n_batches), str(epochs)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("A training did not start.")
        started_s = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "done\n":
                raise RuntimeError("A training did not end.")
        return time.perf_counter() - started_s
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def shared_row(recipe_name: str, scale: Scale) -> Row:
    """Two trainings on one GPU at once, against one after the other."""
    size, epochs = size_of(recipe_name, scale), 3
    alone, both = (side_by_side_s(recipe_name, scale, size, number, epochs) for number in (1, 2))
    per_hour = 3600 * 2 * epochs
    return Row(
        what=f"gpu: {place(scale.device)}, {recipe_name}: two trainings at once, time over one after the other",
        ours=f"{per_hour / both:.0f} epochs of {scale.n_batches} batches per hour",
        theirs=f"{per_hour / (2 * alone):.0f}",
        ratio=both / (2 * alone),
    )


def memory_row(recipe_name: str, scale: Scale) -> Row:
    """A batch that a limit of memory does not hold: in how many parts it is trained."""
    what = f"gpu: {place(scale.device)}, {recipe_name}: parts of a batch that {LIMIT_GIB:g} GiB do not hold"
    if scale.device != "cuda":
        return Row(what=what, ours="", theirs="more than 1", ratio=math.nan, at_least=2)
    total, batch, size = torch.cuda.get_device_properties(0).total_memory, 256, size_of(recipe_name, scale)
    network = build_network(recipe_name, size, "cuda")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(LIMIT_GIB * 2**30 / total)
    try:
        with resident(1, batch, size, "cuda") as images:
            trainer = build_trainer(recipe_name, images, network, "cuda")
            trainer.train_epoch(1)
            wait("cuda")
        return Row(
            what=what, ours=f"{trainer.batch_parts} parts of {batch} images", theirs="more than 1",
            ratio=float(trainer.batch_parts), at_least=2, note=f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB",
        )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def measure(options: Options) -> list[Row]:
    """Measure on the first GPU; without one rows without a measurement, or tiny ones with `full`."""
    if torch.cuda.is_available():
        scale = ON_GPU
    elif options.full:
        scale = DRY
    else:
        return [
            Row(what=f"gpu: {name}: {what}", ours="", theirs="", ratio=math.nan)
            for name in RECIPES
            for what in ("steps", "two trainings at once", "a batch that does not fit")
        ]
    rows = [row for name in RECIPES for row in step_rows(name, scale)]
    return [*rows, *(shared_row(name, scale) for name in RECIPES), memory_row(RECIPES[0], scale)]


if __name__ == "__main__":
    run(measure, __doc__)
