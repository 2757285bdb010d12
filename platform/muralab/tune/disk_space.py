"""What a search writes to the cache's disk, and whether it fits, before anything starts."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from muralab.disk import free_bytes
from muralab.errors import SettingsError, numbered
from muralab.recipe import Recipe, Value
from muralab.tracking import Store
from muralab.trial import views_of

if TYPE_CHECKING:
    from muralab.training.network import Network

HEADER_BYTES = 128
"""Of a .npy file."""
FLOAT_BYTES = 4
TEMPORARY_BYTES, ARTIFACT_BYTES = 200 * 2**20, 50 * 2**20
"""Ray's logs, exports and reports on their way to the store; reports, tables and predictions in the store."""


@dataclass(frozen=True, kw_only=True)
class CacheFile:
    """A file of the cache that all trials read, written once."""

    folder: Path
    pattern: str
    """Of its name, which contains a digest of everything that it depends on."""
    n_bytes: int

    @property
    def is_cached(self) -> bool:
        """Whether a file of exactly this size exists, which is taken for it: this is an estimate."""
        sizes = (path.stat().st_size for path in self.folder.glob(self.pattern))
        return any(size == self.n_bytes + HEADER_BYTES for size in sizes)


def pixel_files(n_images: int, sizes: Iterable[int], cache: Path) -> list[CacheFile]:
    """The decoded images, once for each size in px."""
    return [
        CacheFile(folder=cache / "pixels", pattern=f"squares-{size}-*.npy", n_bytes=n_images * size * size)
        for size in sorted(set(sizes))
    ]


def feature_files(recipes: Mapping[str, Recipe], sets: Mapping[str, int], cache: Path) -> list[CacheFile]:
    """The features of frozen backbones; recipes of one backbone, size and augmentation share them.

    Args:
        recipes: those whose upper phase trains the head alone, by name.
        sets: images of `train` and `validation`.
        cache: the folder.
    """
    distinct = {feature_group(name, recipe): recipe for name, recipe in recipes.items()}
    files = []
    for (*_, n_views), recipe in distinct.items():
        width = feature_width(recipe)
        for name, n in (("train", n_views * sets["train"]), ("validation", sets["validation"])):
            n_bytes = n * width * FLOAT_BYTES
            files.append(CacheFile(folder=cache / "features", pattern=f"*-{name}.npy", n_bytes=n_bytes))
    return files


def feature_group(name: str, recipe: Recipe) -> tuple[str, str, tuple[int, ...], str, int]:
    """What is the same in recipes whose trials of one seed share their features."""
    extractor = _extractor_text(recipe.build, recipe.image_size, tuple(sorted(recipe.model.items())))
    return recipe.pretrained or name, extractor, recipe.decoded_sizes, str(recipe.augment), views_of(recipe)


@functools.cache
def _extractor_text(build: Callable[..., Network], image_size: int, model: tuple[tuple[str, Value], ...]) -> str:
    from muralab.training.features import extractor_text

    return extractor_text(build(image_size=image_size, **dict(model)))


def feature_width(recipe: Recipe) -> int:
    """D of the backbone's pooled features."""
    import torch

    network = recipe.build(image_size=recipe.image_size, **recipe.model).eval()
    with torch.inference_mode():
        return int(network.pooled(torch.zeros(1, recipe.image_size, recipe.image_size, dtype=torch.uint8)).shape[1])


def folder_bytes(folders: Iterable[Path]) -> int:
    """Size of all files in some folders, which need not exist."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def check_places(store: Store, n_models: int, weights_bytes: int) -> None:
    """Refuse to start what would fill the disk of temporary files or of a local store's artifacts.

    Args:
        store: that the runs are written to.
        n_models: whose weights and exported networks are logged.
        weights_bytes: of the largest.

    Raises:
        SettingsError: which disks are too small.
    """
    places = {"temporary files": (Path(tempfile.gettempdir()), TEMPORARY_BYTES, "TMPDIR=<folder>")}
    if store.sqlite_path is not None:
        needed = 2 * n_models * weights_bytes + ARTIFACT_BYTES
        places["runs and models"] = (store.sqlite_path.parent, needed, "MLFLOW_TRACKING_URI=sqlite:///<file>")
    problems = [
        f"{folder} has {free_bytes(folder) / 2**30:.2f} GiB free, and {what} need about {needed / 2**30:.2f} GiB. Free "
        f"some, or name another disk by {variable}."
        for what, (folder, needed, variable) in places.items()
        if free_bytes(folder) < needed
    ]
    if problems:
        raise SettingsError(numbered(f"{len(problems)} disk{'s' * (len(problems) > 1)} too full to start:", problems))


def check_space(needed: int, folder: Path) -> None:
    """Refuse to start what does not fit on a disk.

    Args:
        needed: bytes that are still to be written.
        folder: where to; it need not exist yet.

    Raises:
        SettingsError: how much is needed and free, where, and how to fix it.
    """
    free = free_bytes(folder)
    if needed > free:
        raise SettingsError(
            f"This needs about {needed / 2**30:.1f} GiB of disk at {folder}, where {free / 2**30:.1f} GiB are free. "
            "Free some, name a folder on a larger disk by XDG_CACHE_HOME=<folder>, or give a smaller image_size or "
            "max_concurrent."
        )
