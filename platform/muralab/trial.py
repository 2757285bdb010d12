"""Specification of a trial and its data: the tables of the split with their pixels, training batches, cached features.

Nothing here depends on MLflow or Ray. A worker process on any machine that sees the same folders can run a trial from
its specification alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.augment import Augment
from muralab.data.cache import PixelCache, file_names, open_cache
from muralab.data.images.value_range import range_from_text
from muralab.data.loader import Batch, evaluation_batches, training_batches
from muralab.data.splits import SETS
from muralab.recipe import Recipe, Value, override
from muralab.recipe_loader import load_recipe
from muralab.training.device import gains_from_bfloat16
from muralab.training.features import Features, compute_features, features_key, open_features

if TYPE_CHECKING:
    import torch

    from muralab.training.network import Network

EVALUATION_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything that determines a trial's result; serializable as JSON."""

    name: str
    """Unique within its sweep, such as `inception_add_gate-00`."""
    recipe: str
    overrides: Mapping[str, Value] = field(default_factory=dict)
    """Values that apply to every trial of the sweep: the demo's, then the user's."""
    drawn: Mapping[str, Value] = field(default_factory=dict)
    """Searched values of this trial; searched strengths of augmentation apply to the full phase only."""
    draws: Sequence[str] = field(default_factory=list)
    """Keys of the values that are chosen when the trial starts, from what earlier ones reached (`tune/adaptive.py`);
    empty where `drawn` was complete from the start."""
    seed: int = 0
    weights: str = ""
    """File of pretrained weights for recipes with a pretrained backbone; empty for random weights."""
    table: str
    """CSV with the columns of the index and `set`, see `write_table`."""
    cache_folder: str
    """Folder of decoded images and features, shared by all trials."""
    folder: str
    """Folder of the trial's checkpoints and validation predictions."""
    objective: str = "val_study_auroc"
    threshold: str = ""
    """Rule of the operating threshold, at which `val_study_accuracy` is computed; empty in plans of earlier versions:
    at 0.5."""
    recipe_code: str = ""
    """Digest of the recipe's source, see `digest_sources`; empty in plans of earlier versions."""
    content: str = ""
    """Of the image files, see `Dataset.content`; empty in plans of earlier versions: whatever they hold now."""
    value_range: str = ""
    """Of the data set, as `range_to_text` writes it; empty: each file's type decides, as in earlier versions."""
    threads: int = 1
    gpu: bool = False
    precision: str = ""
    """What training computes in, `float32` or `bfloat16`. Empty in plans of earlier versions: bfloat16 on a GPU that
    has it, else float32."""

    @property
    def is_undrawn(self) -> bool:
        """Whether its values are still to be chosen."""
        return bool(self.draws) and not self.drawn

    @property
    def is_unchanged(self) -> bool:
        """Whether the trial tries the recipe as it is."""
        return not self.drawn and not self.draws

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values."""
        return asdict(self)


@dataclass(frozen=True)
class TrialData:
    """The tables of a split (train, validation, test) and their pixels."""

    cache: PixelCache
    tables: Mapping[str, pd.DataFrame]


def write_table(path: Path, index: pd.DataFrame, sets: Mapping[str, pd.DataFrame]) -> None:
    """Write an index with the set of each image, empty for images in no set (unreadable files)."""
    set_of = {image: name for name, table in sets.items() for image in table["image"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as file:
        index.assign(set=index["image"].map(set_of).fillna("")).to_csv(file, index=False)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read the index that `write_table` wrote; names stay text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).astype({"label": "int64"})


def read_data(table_path: str, cache_folder: str, size: int, content: str = "", value_range: str = "") -> TrialData:
    """Read the split that `write_table` wrote, with its images at a size in px, decoded unless they are cached.

    Raises:
        DataError: the files do not have the content that the trial was planned with.
    """
    index = read_table(table_path)
    cache = open_cache(
        index,
        size=size,
        folder=Path(cache_folder) / "pixels",
        content=content or None,
        value_range=range_from_text(value_range),
    )
    tables = {name: index[index["set"] == name].reset_index(drop=True) for name in SETS}
    return TrialData(cache, tables)


def recipes_of(spec: TrialSpec) -> tuple[Recipe, Recipe]:
    """Return the recipe of the upper phase (augmentation without searched strengths) and the fully resolved recipe."""
    base = override(load_recipe(spec.recipe), spec.overrides)
    resolved = override(base, spec.drawn)
    return replace(resolved, augment=base.augment), resolved


def views_of(recipe: Recipe) -> int:
    """Augmented views per training image that features are computed for, at most one per epoch of the upper phase."""
    return min(recipe.feature_views, max(1, recipe.upper.epochs))


def device_of(spec: TrialSpec) -> str:
    """Return `cuda` or `cpu`."""
    return "cuda" if spec.gpu else "cpu"


def uses_bfloat16(spec: TrialSpec) -> bool:
    """Whether a trial trains, and validates its epochs, in bfloat16 autocast. Its final predictions are float32."""
    if spec.precision:
        return spec.precision == "bfloat16"
    return spec.gpu and gains_from_bfloat16("cuda")


class ImageData:
    """Training batches of a trial and features of its frozen backbone; implements the trainer's `TrainingData`."""

    def __init__(self, spec: TrialSpec, data: TrialData, device: str) -> None:
        self.spec, self.data, self.device = spec, data, device
        self.base, self.resolved = recipes_of(spec)
        self.train = data.tables["train"]
        self.labels = self.train["label"].to_numpy()
        self.batch_size = self.resolved.batch_size
        self.source = self._open_source()

    def _open_source(self) -> PixelCache:
        """The squares that augmentation reads."""
        size, spec = self.resolved.source_size, self.spec
        if size == self.data.cache.size:
            return self.data.cache
        return read_data(spec.table, spec.cache_folder, size, spec.content, spec.value_range).cache

    def batches(self, phase: str, epoch: int) -> Generator[Batch]:
        """Iterate over one epoch, with the augmentation of the phase."""
        recipe = self.base if phase == "upper" else self.resolved
        # Different draws for each phase: epoch 1 of full must not repeat epoch 1 of upper.
        return self._augmented_batches(recipe.augment, epoch if phase == "upper" else 100_000 + epoch, self.batch_size)

    def _augmented_batches(self, augment: Augment, epoch: int, batch_size: int) -> Generator[Batch]:
        return training_batches(
            self.source,
            self.train,
            augment,
            batch_size=batch_size,
            size=self.resolved.image_size,
            seed=self.spec.seed,
            epoch=epoch,
            workers=max(1, self.spec.threads - 1) if self.device == "cuda" else 0,
            pinned=self.device == "cuda",
        )

    def features(self, network: Network) -> Features:
        """Features of the frozen backbone, computed once for all trials that share it."""
        recipe, validation = self.base, self.data.tables["validation"]
        n_views = views_of(recipe)
        key = features_key(
            network,
            train=sorted(file_names(self.train)),
            validation=sorted(file_names(validation)),
            # Identifies the image files, so that two data sets never share features.
            pixels=f"{self.data.cache.path.name} {self.source.path.name}",
            device=self.device,
            precision="bfloat16" if uses_bfloat16(self.spec) else "float32",
            augment=asdict(recipe.augment),
            views=n_views,
            seed=self.spec.seed,
        )

        def pooled(batches: Generator[Batch], n_images: int, which: str) -> np.ndarray:
            title = f"features of images, {which}"
            return compute_features(network, _pairs(batches), n_images, self.device, uses_bfloat16(self.spec), title)

        def compute() -> Features:
            augmented = [self._augmented_batches(recipe.augment, 1 + view, EVALUATION_BATCH) for view in range(n_views)]
            plain = evaluation_batches(self.data.cache, validation, batch_size=EVALUATION_BATCH)
            views = [
                pooled(batches, len(self.train), f"view {i} of {n_views}")
                for i, batches in enumerate(augmented, start=1)
            ]
            return Features(np.stack(views), pooled(plain, len(validation), "validation"))

        return open_features(Path(self.spec.cache_folder) / "features", key, compute)


def _pairs(batches: Iterable[Batch]) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
    for batch in batches:
        yield batch.images, batch.rows
