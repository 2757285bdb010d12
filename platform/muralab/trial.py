"""A trial by its names, and what it trains on: the specification, the split's tables with their pixels, the batches.

Nothing here knows MLflow or Ray. A worker process on any machine that sees the same folders can carry a trial out from
its specification alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from muralab.data.augment import Augment
from muralab.data.cache import PixelCache, open_cache
from muralab.data.loader import Batch, evaluation_batches, training_batches
from muralab.recipe import Recipe, Value, override
from muralab.recipe_loader import load_recipe
from muralab.training.device import uses_bfloat16
from muralab.training.features import Features, compute_features, features_key, open_features

if TYPE_CHECKING:
    import torch

    from muralab.training.network import Network

SETS = ("train", "validation", "test")
EVALUATION_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything that decides one trial's result; JSON holds it whole."""

    name: str
    """Unique within its sweep, `inception_add_gate-00`."""
    recipe: str
    overrides: Mapping[str, Value] = field(default_factory=dict)
    """Values that hold in every trial of the sweep: the demo's, then the user's."""
    drawn: Mapping[str, Value] = field(default_factory=dict)
    """Searched values of this trial; drawn strengths of augmentation act in the full phase alone."""
    seed: int = 0
    weights: str = ""
    """A file of pretrained weights for recipes that take them; empty for random ones."""
    table: str
    """CSV with the index's columns and `set`, see `write_table`."""
    cache_folder: str
    """Decoded images and features, shared by all trials."""
    folder: str
    """Checkpoints and validation predictions of this trial."""
    objective: str = "val_study_auroc"
    threads: int = 1
    gpu: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class TrialData:
    """The three tables of a split and their pixels."""

    cache: PixelCache
    tables: Mapping[str, pd.DataFrame]


def write_table(path: Path, index: pd.DataFrame, sets: Mapping[str, pd.DataFrame]) -> None:
    """Write an index with the set of each image; what is in no set (an unreadable file) gets an empty one."""
    where = {image: name for name, table in sets.items() for image in table["image"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    index.assign(set=index["image"].map(where).fillna("")).to_csv(path, index=False)


def read_data(table_path: str, cache_folder: str, size: int) -> TrialData:
    """The split that `write_table` wrote, with its images decoded at a size (at once, where the cache is warm)."""
    index = pd.read_csv(table_path, dtype=str, keep_default_na=False).astype({"label": "int64"})
    cache = open_cache(index, size=size, folder=Path(cache_folder) / "pixels")
    tables = {name: index[index["set"] == name].reset_index(drop=True) for name in SETS}
    return TrialData(cache, tables)


def recipes_of(spec: TrialSpec) -> tuple[Recipe, Recipe]:
    """The recipe as the upper phase sees it (no drawn strengths) and as it is resolved."""
    base = override(load_recipe(spec.recipe), spec.overrides)
    resolved = override(base, spec.drawn)
    return replace(resolved, augment=base.augment), resolved


def views_of(recipe: Recipe) -> int:
    """Augmented views of each training image that features are computed of: no more than epochs see them."""
    return min(recipe.feature_views, max(1, recipe.upper.epochs))


def device_of(spec: TrialSpec) -> str:
    """`cuda` or `cpu`."""
    return "cuda" if spec.gpu else "cpu"


class ImageData:
    """Training batches of a trial, and the frozen backbone's features; the trainer's `TrainingData`."""

    def __init__(self, spec: TrialSpec, data: TrialData, device: str) -> None:
        self.spec, self.data, self.device = spec, data, device
        self.base, self.resolved = recipes_of(spec)
        self.train = data.tables["train"]
        self.labels = self.train["label"].to_numpy()
        self.batch_size = self.resolved.batch_size

    def batches(self, phase: str, epoch: int) -> Generator[Batch]:
        """One epoch, augmented as the phase asks."""
        recipe = self.base if phase == "upper" else self.resolved
        # Each phase draws its own pictures: epoch 1 of full is not epoch 1 of upper again.
        return self._draw(recipe.augment, epoch if phase == "upper" else 100_000 + epoch, self.batch_size)

    def _draw(self, augment: Augment, epoch: int, batch_size: int) -> Generator[Batch]:
        return training_batches(
            self.data.cache,
            self.train,
            augment,
            batch_size=batch_size,
            seed=self.spec.seed,
            epoch=epoch,
            workers=max(1, self.spec.threads - 1) if self.device == "cuda" else 0,
            pinned=self.device == "cuda",
        )

    def features(self, network: Network) -> Features:
        """Features of the backbone that is frozen now, computed once for all trials that share it."""
        recipe, validation = self.base, self.data.tables["validation"]
        n_views = views_of(recipe)
        key = features_key(
            network,
            train=sorted(self.train["image"]),
            validation=sorted(validation["image"]),
            pixels=self.data.cache.path.name,  # names the files by content: one tree is not taken for another
            device=self.device,
            augment=asdict(recipe.augment),
            views=n_views,
            seed=self.spec.seed,
        )

        def pooled(batches: Generator[Batch], n_images: int) -> np.ndarray:
            return compute_features(network, _pairs(batches), n_images, self.device, uses_bfloat16(self.device))

        def compute() -> Features:
            drawn = [self._draw(recipe.augment, 1 + view, EVALUATION_BATCH) for view in range(n_views)]
            plain = evaluation_batches(self.data.cache, validation, batch_size=EVALUATION_BATCH)
            views = [pooled(batches, len(self.train)) for batches in drawn]
            return Features(np.stack(views), pooled(plain, len(validation)))

        return open_features(Path(self.spec.cache_folder) / "features", key, compute)


def _pairs(batches: Iterable[Batch]) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
    for batch in batches:
        yield batch.images, batch.rows
