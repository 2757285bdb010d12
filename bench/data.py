"""Synthetic data for several benchmarks: a small MURA tree of noise, and batches of its images."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from muralab.data.augment import Augment
from muralab.data.cache import PixelCache, open_cache
from muralab.data.loader import Batch, training_batches
from muralab.training.features import Features
from muralab.training.network import Network

AUGMENT = Augment(zoom=0.15, rotate_degrees=20, shift=0.1, contrast=0.2)


def build_index(root: Path, n_images: int) -> pd.DataFrame:
    """An index as `read_index` returns it: one image per patient, every second abnormal, every twelfth in `valid`."""
    rows = []
    for number in range(n_images):
        split, label = "valid" if number % 12 == 0 else "train", (number + number // 12) % 2
        patient = f"patient{number:05d}"
        study = f"{split}/XR_WRIST/{patient}/study1_{('negative', 'positive')[label]}"
        image = f"{study}/image1.png"
        rows.append((split, "wrist", patient, study, image, label, str(root / image)))
    return pd.DataFrame(rows, columns=["split", "part", "patient", "study", "image", "label", "path"])


def write_tree(root: Path, n_images: int, *, side: int = 64) -> pd.DataFrame:
    """Write the images and lists of a MURA tree: random grey patches with grain, so that no two images are similar."""
    table = build_index(root, n_images)

    def write(row: tuple[int, str]) -> None:
        number, path = row
        rng = np.random.default_rng(number)
        patches = rng.integers(20, 235, (8, 8), dtype=np.uint8)
        image = np.asarray(Image.fromarray(patches).resize((side, side), Image.Resampling.BILINEAR))
        Path(path).parent.mkdir(parents=True)
        Image.fromarray(image ^ rng.integers(0, 4, image.shape, dtype=np.uint8)).save(path, compress_level=1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, enumerate(table["path"])))
    for split, group in table.groupby("split"):
        images = group["image"].map(lambda image: f"{root.name}/{image}")
        images.to_csv(root / f"{split}_image_paths.csv", index=False, header=False)
        studies = group.assign(study=f"{root.name}/" + group["study"] + "/")[["study", "label"]].drop_duplicates()
        studies.to_csv(root / f"{split}_labeled_studies.csv", index=False, header=False)
    return table


class CachedImages:
    """Training data as in a trial: augmented batches from the pixel cache. Frozen features are not supported."""

    def __init__(self, cache: PixelCache, table: pd.DataFrame, batch_size: int, *, workers: int = 0) -> None:
        self.cache, self.table, self.batch_size, self.workers = cache, table, batch_size, workers
        self.labels = table["label"].to_numpy()

    def batches(self, phase: str, epoch: int) -> Generator[Batch]:
        """One epoch."""
        del phase
        return training_batches(
            self.cache,
            self.table,
            AUGMENT,
            batch_size=self.batch_size,
            seed=0,
            epoch=epoch,
            workers=self.workers,
            pinned=self.workers > 0 and torch.cuda.is_available(),
        )

    def features(self, network: Network) -> Features:
        """Not supported."""
        raise NotImplementedError


def open_images(folder: Path, n_images: int, size: int, batch_size: int, *, workers: int = 0) -> CachedImages:
    """Write a tree of `n_images` and decode it at `size`."""
    table = write_tree(folder / "MURA-v1.1", n_images, side=max(64, size))
    return CachedImages(open_cache(table, size=size, folder=folder / "cache"), table, batch_size, workers=workers)
