"""How many augmented images per second does one core deliver, compared with torchvision?

    python -m bench.input            (about a minute on one core)

Both sides make uint8 batches of 299 px squares from the same 512 px grey PNGs with the same operations: resize, rotate,
zoom, shift, change contrast and brightness. Ours: the memory-mapped cache and `training_batches`. Theirs: torchvision's
ImageFolder (with a grey loader, which is in its favor) and transforms.v2 in a DataLoader, on Pillow images and on
tensors; the faster one counts. One thread each, interleaved rounds, medians. Building the cache happens once for all
epochs and trials; a note shows after how many epochs it has paid off.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from bench.common import Options, Row, interleave, ratios, run
from bench.data import AUGMENT
from muralab.data.cache import PixelCache, open_cache
from muralab.data.loader import training_batches

SOURCE_PX = 512
SIZE = 299
BATCH = 32
TARGET = 10.0
KINDS = ("Pillow images", "tensors")


def write_images(root: Path, n_images: int) -> None:
    """Write grey PNGs with soft shapes and grain, about as hard to decode as radiographs, into two class folders."""
    rng = np.random.default_rng(0)
    for number in range(n_images):
        folder = root / f"class{number % 2}"
        folder.mkdir(exist_ok=True, parents=True)
        soft = cv2.resize(rng.random((9, 9), np.float32), (SOURCE_PX, SOURCE_PX), interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0.0, 1.5, (SOURCE_PX, SOURCE_PX))
        Image.fromarray(np.clip(soft * 200 + grain, 0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")


def list_images(root: Path) -> pd.DataFrame:
    paths = sorted(root.glob("*/*.png"))
    names = [path.relative_to(root).as_posix() for path in paths]
    labels = [int(path.parent.name[-1]) for path in paths]
    return pd.DataFrame({"image": names, "path": [str(path) for path in paths], "label": labels})


def read_grey(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("L")


def torchvision_loader(root: Path, *, on_tensors: bool) -> DataLoader[Any]:
    """The same operations with the same strengths, on Pillow images or on tensors."""
    affine = v2.RandomAffine(
        AUGMENT.rotate_degrees,
        translate=(AUGMENT.shift, AUGMENT.shift),
        scale=(1 - AUGMENT.zoom, 1 + AUGMENT.zoom),
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    steps = [v2.Resize(SIZE), affine, v2.ColorJitter(brightness=AUGMENT.contrast / 2, contrast=AUGMENT.contrast)]
    to_tensor = v2.PILToTensor()
    steps = [to_tensor, *steps] if on_tensors else [*steps, to_tensor]
    return DataLoader(ImageFolder(str(root), v2.Compose(steps), loader=read_grey), batch_size=BATCH, shuffle=True)


def images_per_second(batches: Iterable[Any], count: Callable[[Any], int]) -> float:
    started = time.perf_counter()
    n_images = sum(count(batch) for batch in batches)
    return n_images / (time.perf_counter() - started)


def our_rate(cache: PixelCache, table: pd.DataFrame, *, first_epoch: int) -> float:
    """Images per second over several epochs: a single one is too short to be measured reliably."""
    batches = (
        batch
        for epoch in range(first_epoch, first_epoch + 5)
        for batch in training_batches(cache, table, AUGMENT, batch_size=BATCH, seed=0, epoch=epoch)
    )
    return images_per_second(batches, lambda batch: len(batch.rows))


def measure_rates(root: Path, cache: PixelCache, table: pd.DataFrame, rounds: int) -> dict[str, list[float]]:
    """Images per second of each side in each round."""
    loaders = {f"torchvision, {kind}": torchvision_loader(root, on_tensors=kind == "tensors") for kind in KINDS}
    epochs = itertools.count(step=5)
    sides: dict[str, Callable[[], float]] = {"ours": lambda: our_rate(cache, table, first_epoch=next(epochs))}
    for name, loader in loaders.items():
        sides[name] = functools.partial(images_per_second, loader, lambda batch: len(batch[1]))
    return interleave(sides, rounds)


def measure(options: Options) -> list[Row]:
    """Measure both sides in turn, and the cost of the cache."""
    n_images, rounds = (512, 15) if options.full else (256, 9)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        write_images(root, n_images)
        table = list_images(root)
        started = time.perf_counter()
        cache = open_cache(table, size=SIZE, folder=Path(folder) / "cache", workers=1)
        build_rate = n_images / (time.perf_counter() - started)
        rates = measure_rates(root, cache, table, rounds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    theirs = max((name for name in medians if name != "ours"), key=lambda name: medians[name])
    ratio, spread = ratios(rates["ours"], rates[theirs])
    epochs = 1 / build_rate / (1 / medians[theirs] - 1 / medians["ours"])
    return [
        Row(
            what=f"input: augmented {SIZE} px squares from {SOURCE_PX} px PNGs, one core",
            ours=f"{medians['ours']:.0f} images/s",
            theirs=f"{theirs} {medians[theirs]:.0f}/s",
            ratio=ratio,
            spread=spread,
            at_least=TARGET,
            note=f"the cache is built once, at {build_rate:.0f} images/s; it pays off after {epochs:.1f} epochs",
        )
    ]


if __name__ == "__main__":
    run(measure, __doc__)
