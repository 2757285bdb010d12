"""From what a user names (`demo`, or a path) to a split data set, decoded in one pass.

source = find_dataset(data, part, protocol="valid-as-test", seed=0)  # cheap: reads and splits the index
dataset = open_dataset(source, image_sizes=[112, 299], cache_folder=cache, progress=progress)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from muralab.data.audit.facts import FileFacts, collect_facts
from muralab.data.audit.pictures import PICTURE_COLUMNS
from muralab.data.audit.report import Audit, audit_images, is_audited
from muralab.data.cache import PixelCache, open_caches
from muralab.data.mura import find_root, read_index
from muralab.data.splits import Splits, split_index
from muralab.demo.dataset import default_folder, is_synthetic, write_demo
from muralab.errors import DataError, numbered

DEMO = "demo"
VALIDATION_FRACTION = {True: 0.25, False: 0.15}
"""Of the training patients, for synthetic and for real data: on the small demo, less could not choose a model."""
Progress = Callable[[str], Callable[[int, int], None]]
"""Title of a task -> function of (done, total)."""


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A data set before decoding; its index is read and split once."""

    data: str
    """`demo`, or the path of a MURA tree."""
    part: str
    protocol: str
    seed: int

    @property
    def is_demo(self) -> bool:
        """Whether this is the demo, which is drawn when it is first used."""
        return self.data == DEMO

    @property
    def n_images(self) -> int:
        """Images to decode; 0 for the demo, which is small and may not be drawn yet."""
        return 0 if self.is_demo else len(self.index)

    @cached_property
    def root(self) -> Path:
        """The folder that holds `train/` and `valid/`."""
        return write_demo(default_folder()) if self.is_demo else find_root(Path(self.data))

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per image, including unreadable ones."""
        return read_index(self.root, self.part)

    @cached_property
    def split_of_all(self) -> tuple[Splits, tuple[str, ...]]:
        """The split of all images, and its warnings."""
        return self._split(self.index)

    def split_without(self, unreadable: Collection[str]) -> tuple[Splits, tuple[str, ...]]:
        """The split of the readable images, and its warnings.

        Raises:
            DataError: a set lacks a class.
        """
        if not unreadable:
            return self.split_of_all
        return self._split(self.index[~self.index["image"].isin(list(unreadable))].reset_index(drop=True))

    def _split(self, index: pd.DataFrame) -> tuple[Splits, tuple[str, ...]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            splits = split_index(
                index,
                protocol=self.protocol,
                seed=self.seed,
                validation_fraction=VALIDATION_FRACTION[is_synthetic(self.root)],
            )
        return splits, tuple(str(warning.message) for warning in caught)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One part of a MURA tree, split by patient, decoded and audited."""

    root: Path
    part: str
    synthetic: bool
    index: pd.DataFrame
    """All rows, including unreadable images."""
    unreadable: dict[str, str]
    """Image -> why it cannot be decoded; these are in no set."""
    splits: Splits
    caches: Mapping[int, PixelCache]
    """Image size in px -> squares of all rows."""
    audit: Audit
    """Of every file, with our sets as `split`, so that it finds leakage across our own split."""
    notes: tuple[str, ...]
    """Warnings, for the log and the report."""

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """train, validation and test."""
        return dict(self.splits.items())

    def digest(self, name: str) -> str:
        """Digest of a set's rows and of the bytes of its files, 32 hex characters."""
        return self.audit.digests[name]

    def identities(self, table: pd.DataFrame) -> pd.DataFrame:
        """Image, patient and the identity of the picture (`PICTURE_COLUMNS`) of some rows of the index."""
        known = self.audit.pictures
        rows = table[["image", "patient"]].merge(known, on="image", how="left", validate="one_to_one")
        return rows.fillna(dict.fromkeys(PICTURE_COLUMNS, ""))

    def split_rows(self) -> pd.DataFrame:
        """The identities of all images of the three sets, with their `set`: what a trained run logs of its split."""
        return pd.concat(
            [self.identities(table).assign(set=name) for name, table in self.splits.items()], ignore_index=True
        )

    def counts(self) -> pd.DataFrame:
        """One row per set: studies, patients, images, abnormal images."""
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
    """The MURA tree that a user named (the demo is drawn if missing), and whether it is synthetic."""
    if data == DEMO:
        return write_demo(default_folder(), progress=progress("drawing the demo's synthetic radiographs")), True
    root = find_root(Path(data))
    return root, is_synthetic(root)


def find_dataset(data: str, part: str, *, protocol: str, seed: int) -> DatasetSource:
    """Find, index and split a data set, without opening any image; the demo is not even drawn.

    Args:
        data: `demo`, or the path of a MURA tree.
        part: one of the tree's parts, or `all`.
        protocol: which official folder the test set comes from.
        seed: of the split.

    Raises:
        DataError: the tree or the part does not exist, files are missing, or a set lacks a class.
        SettingsError: an unknown protocol or an impossible seed.
    """
    source = DatasetSource(data=data, part=part, protocol=protocol, seed=seed)
    if not source.is_demo:
        _ = source.split_of_all
    return source


def open_dataset(
    source: DatasetSource, *, image_sizes: Iterable[int], cache_folder: Path, progress: Progress
) -> Dataset:
    """Decode and audit a data set, each file once; caches and audits of earlier calls are reused.

    Args:
        source: from `find_dataset`.
        image_sizes: px; every size that will be needed.
        cache_folder: for decoded images and audits.
        progress: reports long steps.

    Raises:
        DataError: a file cannot be read, a set lacks a class without the unreadable images, or a cache cannot be
            written.
    """
    if source.is_demo:
        open_root(DEMO, progress)  # draws it
    index = source.index
    audits = cache_folder / "audit"
    facts: dict[str, FileFacts] = {}
    # A guess: if some images are unreadable, the final split and thus the audit may differ from those of all images.
    audited = is_audited(with_sets(index, source.split_of_all[0], ()), folder=audits)
    caches = open_caches(
        index,
        sizes=image_sizes,
        folder=cache_folder / "pixels",
        progress=progress("decoding images"),
        inspect=None if audited else collect_facts(facts),
    )
    unreadable = dict(next(iter(caches.values())).unreadable)
    notes = _unreadable_notes(unreadable)
    try:
        splits, split_notes = source.split_without(unreadable)
    except DataError as error:  # the unreadable images may be why a class is empty
        raise DataError("\n".join([str(error), *notes])) from error
    audit = audit_images(
        with_sets(index, splits, unreadable),
        folder=audits,
        facts=facts,
        progress=progress("auditing files"),
    )
    return Dataset(
        root=source.root,
        part=source.part,
        synthetic=is_synthetic(source.root),
        index=index,
        unreadable=unreadable,
        splits=splits,
        caches=caches,
        audit=audit,
        notes=(*notes, *split_notes, *audit.warnings()),
    )


def _unreadable_notes(unreadable: Mapping[str, str]) -> list[str]:
    """One note that lists the unreadable images, if there are any."""
    lines = [f"{image}: {reason}" for image, reason in sorted(unreadable.items())]
    return [numbered(f"{len(lines)} images cannot be decoded and are left out:", lines)] if lines else []


def with_sets(index: pd.DataFrame, splits: Splits, unreadable: Collection[str]) -> pd.DataFrame:
    """The index with our sets as `split`, for the audit.

    An unreadable image belongs to its patient's set, or to none (`left out`). Readable images in no set (of patients in
    both official folders) are not audited.
    """
    kept = {image for _, table in splits.items() for image in table["image"]}
    sets = {patient: name for name, table in splits.items() for patient in table["patient"]}
    rows = index[index["image"].isin(kept | set(unreadable))]
    return rows.assign(split=rows["patient"].map(sets).fillna("left out"))
