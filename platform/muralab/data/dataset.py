"""From what a user names (`demo`, a MURA tree or a manifest) to a split data set, decoded in one pass.

source = find_dataset(data, part, seed=0)  # cheap: reads and splits the index
dataset = open_dataset(source, image_sizes=[112, 299], cache_folder=cache, progress=progress)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from muralab.data.audit.facts import FileFacts, collect_facts
from muralab.data.audit.pictures import PICTURE_COLUMNS
from muralab.data.audit.report import Audit, audit_images, is_audited
from muralab.data.cache import PixelCache
from muralab.data.digests import FileDigests
from muralab.data.images.value_range import ValueRange
from muralab.data.label_corrections import LabelCorrections
from muralab.data.manifest import Manifest
from muralab.data.name_keys import NAMES_FOLDER, find_key, write_names
from muralab.data.names import REAL, NameKey, code_names, hide_names_of, with_real_names
from muralab.data.source import AUTO, DatasetSource, Progress
from muralab.data.splits import SETS, Splits, fingerprint
from muralab.data.value_ranges import DECIDE, RangeChoice, StoredValuesIndex, decode_in_range
from muralab.errors import DataError, numbered


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One part of a data set, split by patient, decoded and audited."""

    root: Path
    """The folder that image names start from."""
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
    value_range: ValueRange | None
    """Stored values that are black and white where files do not say so; None: as their type says."""
    content: str
    """Digest of all rows' names and their files' bytes, see `FileDigests.key`."""
    notes: tuple[str, ...]
    """Warnings, for the log and the report."""
    manifest: Manifest | None = None
    """Where the rows came from; None for a MURA tree."""
    key: NameKey | None = None
    """Of the codes that stand for all names above; None for generated images, whose names are shown."""
    names_file: Path | None = None
    """Local table of codes and names; None without a key."""
    corrections: LabelCorrections | None = None
    """What readers decided about the labels above; None where nobody was asked."""

    @property
    def source(self) -> str:
        """The path of the manifest, or of the MURA tree."""
        return str(self.root if self.manifest is None else self.manifest.path)

    @property
    def facts(self) -> pd.DataFrame:
        """Further columns of the manifest by image, see `Manifest.facts`; without columns for a MURA tree."""
        images = pd.Index(self.index["image"], name="image")
        return pd.DataFrame(index=images) if self.manifest is None else self.manifest.facts.set_axis(images)

    @property
    def study_facts(self) -> pd.DataFrame:
        """The same by study, missing where the images of a study differ."""
        if self.manifest is None:
            return pd.DataFrame(index=pd.Index(sorted(set(self.index["study"])), name="study"))
        names = self.index[REAL["study"]] if self.key is not None else self.index["study"]
        return self.manifest.study_facts.rename(index=dict(zip(names, self.index["study"])))

    @property
    def key_id(self) -> str:
        """What identifies the key of its codes in a run; empty without one."""
        return "" if self.key is None else self.key.id

    @property
    def unreadable_files(self) -> set[str]:
        """Names of the unreadable images below the root."""
        return set(with_real_names(pd.DataFrame({"image": list(self.unreadable)}), self.index)["image"])

    def fingerprint(self, predictions: pd.DataFrame) -> str:
        """Digest of the images of a test set with their labels and patients, which does not depend on the key."""
        return fingerprint(with_real_names(predictions, self.index).assign(split="test"))

    def hide_names(self, text: str) -> str:
        """A text, such as an error's, with codes instead of the data set's names and paths."""
        return hide_names_of(self.index, text, self.key)

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

    def decided_labels(self) -> pd.DataFrame:
        """The studies that readers decided about, by the names that may be logged: study, set, label_before, label."""
        if self.corrections is None:
            return pd.DataFrame(columns=["study", "set", "label_before", "label"])
        decided = self.corrections.decided.set_index("study")
        studies = self.index.drop_duplicates("study")
        real = studies[REAL["study"] if REAL["study"] in studies else "study"]
        sets = {study: name for name, table in self.splits.items() for study in table["study"]}
        rows = studies.assign(real=real)[real.isin(decided.index).to_numpy()]
        return pd.DataFrame(
            {
                "study": rows["study"],
                "set": rows["study"].map(sets).fillna(""),
                "label_before": rows["real"].map(decided["before"]),
                "label": rows["label"],
            }
        ).reset_index(drop=True)

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


def find_dataset(
    data: str,
    part: str,
    *,
    protocol: str = AUTO,
    seed: int,
    validation_fold: tuple[int, int] | None = None,
    image_root: str | None = None,
    columns: Mapping[str, str] | None = None,
    sets: Collection[str] = SETS,
    label_corrections: str | None = None,
) -> DatasetSource:
    """Find, index and split a data set, without opening any image; the demo is not even drawn.

    Args:
        data: `demo`, or the path of a MURA tree or of a manifest.
        part: one of the data set's parts, or `all`.
        protocol: how the test set is chosen, see `Splits`; AUTO: as fits the data.
        seed: of the split.
        validation_fold: see `split_index`.
        image_root: the folder that a manifest's image paths start from; None: its own.
        columns: those of a manifest's columns that have other names.
        sets: the sets that must have images of both classes.
        label_corrections: path of a table of what readers decided, see `read_corrections`.

    Raises:
        DataError: the data or the part do not exist, files are missing, rows of a manifest or of label corrections
            cannot be used, or a set lacks a class.
        SettingsError: an unknown protocol or one that does not fit the data, or an impossible seed.
    """
    return DatasetSource(
        data=data,
        part=part,
        protocol=protocol,
        seed=seed,
        validation_fold=validation_fold,
        image_root=image_root,
        columns=columns or {},
        sets=tuple(sets),
        label_corrections=label_corrections,
    ).checked()


def open_dataset(
    source: DatasetSource,
    *,
    image_sizes: Iterable[int],
    cache_folder: Path,
    progress: Progress,
    value_range: RangeChoice = DECIDE,
    names_key: Path | None = None,
) -> Dataset:
    """Decode and audit a data set, each file once; caches and audits of earlier calls are reused.

    Files that do not say which of their values are black and white are decoded twice, see `decode_in_range`.

    Args:
        source: from `find_dataset`.
        image_sizes: px; every size that will be needed.
        cache_folder: for decoded images, audits and keys of names.
        progress: reports long steps.
        value_range: in which such files are shown; by default that of the training images.
        names_key: file of a shared key; None: the data set's own key on this machine.

    Returns:
        The data set with codes instead of names, unless its images are generated.

    Raises:
        DataError: a file cannot be read, a set lacks a class without the unreadable images, or a cache cannot be
            written.
    """
    source.draw_demo(progress)
    index = source.index
    pixels, audits = cache_folder / "pixels", cache_folder / "audit"
    digests = FileDigests(index, pixels)
    facts: dict[str, FileFacts] = {}
    # A guess: if some images are unreadable, the final split and thus the audit may differ from those of all images.
    splits, split_notes = source.split_of_all
    values = StoredValuesIndex(index, pixels, digests)
    chosen = value_range if value_range != DECIDE else values.range_of(splits.train)
    table = with_sets(index, splits, ())
    inspect = None if is_audited(table, folder=audits, digests=digests, value_range=chosen) else collect_facts(facts)

    def decode(training: pd.DataFrame) -> tuple[dict[int, PixelCache], ValueRange | None]:
        return decode_in_range(
            index,
            training,
            value_range=value_range,
            sizes=image_sizes,
            folder=pixels,
            digests=digests,
            values=values,
            inspect=inspect,
            progress=progress("decoding images"),
        )

    caches, chosen = decode(splits.train)
    unreadable = dict(next(iter(caches.values())).unreadable)
    try:
        splits, split_notes = source.split_without(unreadable)
    except DataError as error:  # the unreadable images may be why a class is empty
        raise DataError("\n".join([str(error), *_unreadable_notes(unreadable)])) from error
    if unreadable:
        caches, chosen = decode(splits.train)  # the same, unless the split without these images has another range
    audit = audit_images(
        with_sets(index, splits, unreadable),
        folder=audits,
        facts=facts,
        digests=digests,
        value_range=chosen,
        progress=progress("auditing files"),
    )
    dataset = Dataset(
        root=source.root,
        part=source.part,
        synthetic=source.is_synthetic,
        index=index,
        unreadable=unreadable,
        splits=splits,
        caches=caches,
        content=str(digests.key(index)),
        audit=audit,
        value_range=chosen,
        notes=(*source.notes, *split_notes),
        manifest=source.manifest,
        corrections=source.corrections,
    )
    return _with_audit_notes(_with_codes(dataset, cache_folder / NAMES_FOLDER, names_key))


def _with_codes(dataset: Dataset, folder: Path, shared: Path | None) -> Dataset:
    """The same with codes instead of names; the data set itself where its images are generated.

    Everything before this works with names: order and split of the images, their cache and their audit do not depend
    on the key, nor do the digests of sets and split.
    """
    if dataset.synthetic:
        return dataset
    key = find_key(folder, dataset.source, dataset.index, shared=shared)
    index = code_names(dataset.index, key, keep=True)
    tables = {name: code_names(table, key, keep=True) for name, table in dataset.splits.items()}
    coded = replace(
        dataset,
        index=index,
        unreadable={key.code("image", image): reason for image, reason in dataset.unreadable.items()},
        splits=replace(dataset.splits, **tables),
        caches={size: cache.coded(index) for size, cache in dataset.caches.items()},
        audit=dataset.audit.coded(key),
        key=key,
        names_file=write_names(folder, key, index),
    )
    return replace(coded, notes=tuple(coded.hide_names(note) for note in dataset.notes))


def _with_audit_notes(dataset: Dataset) -> Dataset:
    """The same with notes of what cannot be decoded and of what the audit found."""
    return replace(dataset, notes=(*_unreadable_notes(dataset.unreadable), *dataset.notes, *dataset.audit.warnings()))


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
