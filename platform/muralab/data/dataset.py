"""From what a user names (`demo`, or a path) to a split data set whose unreadable files are known and left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from muralab.data.audit.audit import Audit, audit_images
from muralab.data.cache import open_cache
from muralab.data.mura import find_root, read_index
from muralab.data.splits import Splits, split_index
from muralab.demo.dataset import default_folder, is_synthetic, write_demo
from muralab.errors import DataError, numbered

DEMO = "demo"
VALIDATION_FRACTION = {True: 0.25, False: 0.15}
"""Of the training patients, on synthetic and on real data: the demo is so small that less could not choose a model."""
Progress = Callable[[str], Callable[[int, int], None]]
"""Title of a task -> function of (done, total)."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A MURA tree's part, divided by patient."""

    root: Path
    part: str
    synthetic: bool
    index: pd.DataFrame
    """All rows, the unreadable included."""
    unreadable: dict[str, str]
    """Image -> why it cannot be decoded; these are in no set."""
    splits: Splits
    audit: Audit
    """Of every file, with the sets as `split`, so that it finds what leaks across our own division."""
    notes: tuple[str, ...]
    """Warnings, for the log and the report."""

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """train, validation and test."""
        return dict(self.splits.items())

    def digest(self, name: str) -> str:
        """Of a set's rows and of the bytes of its files, 32 hex characters."""
        return self.audit.digests[name]

    def counts(self) -> pd.DataFrame:
        """A row a set: studies, patients, images, abnormal images."""
        return pd.DataFrame(
            [
                {
                    "set": name,
                    "studies": table["study"].nunique(),
                    "patients": table["patient"].nunique(),
                    "images": len(table),
                    "abnormal": int(table["label"].sum()),
                }
                for name, table in self.tables.items()
            ]
        )


def open_root(data: str, progress: Progress) -> tuple[Path, bool]:
    """The MURA tree that a user named, the demo written where it is missing; and whether it is synthetic."""
    if data == DEMO:
        return write_demo(default_folder(), progress=progress("drawing the demo's synthetic radiographs")), True
    root = find_root(Path(data))
    return root, is_synthetic(root)


def check_data(data: str, part: str, *, protocol: str, seed: int) -> int:
    """Refuse what a path and its tables alone show to be wrong, before anything slow; the demo is always right.

    Returns:
        How many images there are to decode; 0 for the demo, whose images are few and not drawn yet.

    Raises:
        DataError: as `open_dataset`, apart from what decoding finds.
    """
    if data == DEMO:
        return 0
    root = find_root(Path(data))
    index = read_index(root, part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split_index(index, protocol=protocol, seed=seed, validation_fraction=VALIDATION_FRACTION[is_synthetic(root)])
    return len(index)


def open_dataset(
    data: str, part: str, *, protocol: str, seed: int, image_size: int, cache_folder: Path, progress: Progress
) -> Dataset:
    """Find, index, decode and split a data set.

    Args:
        data: `demo`, or the path of a MURA tree.
        part: one of the tree's parts, or `all`.
        protocol: which official folder the test set comes from.
        seed: of the split.
        image_size: px; decoding at it finds the unreadable files and warms the cache.
        cache_folder: for decoded images.
        progress: shows long steps.

    Raises:
        DataError: there is no such tree or part, files are missing, or a set lacks a class.
    """
    root, synthetic = open_root(data, progress)
    index = read_index(root, part)
    cache = open_cache(index, size=image_size, folder=cache_folder / "pixels", progress=progress("decoding images"))
    unreadable = dict(cache.unreadable)
    notes = []
    if unreadable:
        lines = [f"{image}: {reason}" for image, reason in sorted(unreadable.items())]
        notes.append(numbered(f"{len(lines)} images cannot be decoded and are left out:", lines))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            splits = split_index(
                cache.readable(index),
                protocol=protocol,
                seed=seed,
                validation_fraction=VALIDATION_FRACTION[synthetic],
            )
        except DataError as error:  # what cannot be decoded may be why a class is empty
            raise DataError("\n".join([str(error), *notes])) from error
    notes += [str(warning.message) for warning in caught]
    audit = audit_images(
        with_roles(index, splits, unreadable), folder=cache_folder / "audit", progress=progress("auditing files")
    )
    notes += audit.warnings()
    return Dataset(
        root=root,
        part=part,
        synthetic=synthetic,
        index=index,
        unreadable=unreadable,
        splits=splits,
        audit=audit,
        notes=tuple(notes),
    )


def with_roles(index: pd.DataFrame, splits: Splits, unreadable: Collection[str]) -> pd.DataFrame:
    """The index with the sets as `split`, for the audit.

    An unreadable image counts to its patient's set, or to none (`left out`). Readable images that are in no set (of
    patients on both official sides) are not audited.
    """
    kept = {image for _, table in splits.items() for image in table["image"]}
    roles = {patient: name for name, table in splits.items() for patient in table["patient"]}
    rows = index[index["image"].isin(kept | set(unreadable))]
    return rows.assign(split=rows["patient"].map(roles).fillna("left out"))
