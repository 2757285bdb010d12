"""Batches of grey squares from the cache, identical for every number of threads.

Normalisation and the expansion to 3 channels happen on the device, inside the network, so a batch is small and uint8.

Shape legend: B batch, N images of a table, S side in px.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from muralab.data.augment import Augment, Augmenter, build_augmenter
from muralab.data.cache import PixelCache
from muralab.errors import DataError, SettingsError
from muralab.threads import map_in_threads

Batches = Generator["Batch", None, None]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images of a table, on the CPU."""

    images: torch.Tensor
    """uint8 [B, S, S]"""
    labels: torch.Tensor
    """float32 [B], 0 or 1"""
    rows: torch.Tensor
    """int64 [B], the images' positions in the table"""


def training_batches(
    cache: PixelCache,
    table: pd.DataFrame,
    augment: Augment,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    size: int | None = None,
    workers: int = 0,
    pinned: bool = False,
) -> Batches:
    """Yield one epoch of a table, shuffled and augmented; closing the generator stops its threads.

    Args:
        cache: contains the table's images.
        table: images and labels, N rows, all readable.
        augment: strengths; the draw for an image depends only on seed, epoch and its position in the table.
        batch_size: images per batch; a last batch of one image is merged into the previous one (BatchNorm needs two).
        seed: 0 or more.
        epoch: 0 or more; each epoch has its own order and draws.
        size: S in px; None: that of the cache, whose squares may be larger.
        workers: prefetching threads; 0 loads in the calling thread.
        pinned: put the pixels into pinned memory, from which a GPU copies asynchronously.

    Raises:
        SettingsError: an impossible value.
        DataError: an image is unreadable or not in the cache.
    """
    if min(batch_size - 1, seed, epoch, workers) < 0:
        raise SettingsError(
            f"Impossible loader settings: batch_size={batch_size}, seed={seed}, epoch={epoch}, workers={workers} "
            "(batch_size must be 1 or more, the others 0 or more)."
        )
    size = size or cache.size
    source = _Source(cache, table, size=size, pinned=pinned)
    order = np.random.default_rng((seed, epoch)).permutation(len(table))
    seeds = np.random.SeedSequence((seed, epoch, 1)).generate_state(max(len(table), 1), np.uint64).astype(np.uint64)
    augmenter = None if augment.is_off and size == cache.size else build_augmenter(augment, size, source=cache.size)
    return map_in_threads(
        lambda rows: source.batch(rows, augmenter, seeds),
        _chunks(order, batch_size),
        workers=workers,
        name="muralab-loader",
    )


def evaluation_batches(cache: PixelCache, table: pd.DataFrame, *, batch_size: int) -> Batches:
    """Yield a table in its own order, without augmentation.

    Raises:
        SettingsError: an impossible batch size.
        DataError: an image is unreadable or not in the cache.
    """
    if batch_size < 1:
        raise SettingsError(f"batch_size must be 1 or more, received {batch_size}.")
    source = _Source(cache, table, size=cache.size)
    positions = np.arange(len(table), dtype=np.int64)
    chunks = [positions[first : first + batch_size] for first in range(0, len(positions), batch_size)]
    return map_in_threads(lambda rows: source.batch(rows, None, None), chunks, workers=0)


class _Source:
    """A table's pixels and labels by position."""

    def __init__(self, cache: PixelCache, table: pd.DataFrame, *, size: int, pinned: bool = False) -> None:
        self.size, self.pinned = size, pinned
        n_unreadable = len(table) - len(cache.readable(table))
        if n_unreadable:
            raise DataError(
                f"{n_unreadable} images of this table cannot be decoded; remove them by cache.readable(table)."
            )
        # A plain view: indexing a numpy.memmap takes several microseconds more per image.
        self.pixels = np.asarray(cache.images)
        self.cache_rows = cache.rows(table)
        self.labels = table["label"].to_numpy(dtype=np.float32)

    def batch(self, rows: Positions, augmenter: Augmenter | None, seeds: npt.NDArray[np.uint64] | None) -> Batch:
        """The images at the given positions of the table, each augmented with its own seed."""
        cache_rows = self.cache_rows[rows]
        images = torch.empty((len(rows), self.size, self.size), dtype=torch.uint8, pin_memory=self.pinned)
        target = images.numpy()
        if augmenter is None or seeds is None:
            np.take(self.pixels, cache_rows, axis=0, out=target, mode="clip")  # mode="raise" would copy once more
        else:
            for position, (cache_row, seed) in enumerate(zip(cache_rows.tolist(), seeds[rows].tolist())):
                target[position] = augmenter(self.pixels[cache_row], seed)
        return Batch(images, torch.from_numpy(self.labels[rows]), torch.from_numpy(rows))


def _chunks(order: Positions, batch_size: int) -> list[Positions]:
    """The positions of each batch."""
    chunks = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [np.concatenate(chunks[-2:])]
    return chunks
