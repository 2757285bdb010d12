"""A data set before decoding: what a user names (`demo`, a MURA tree or a manifest), indexed and split."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from muralab.data.label_corrections import LabelCorrections, read_corrections
from muralab.data.manifest import Manifest, is_manifest, read_manifest, require_manifest
from muralab.data.mura import ALL_PARTS, Tree, find_root, is_study, parts_of, read_tree, require_part
from muralab.data.name_keys import find_key
from muralab.data.names import NameKey
from muralab.data.splits import MANIFEST_PROTOCOL, PROTOCOLS, SETS, Splits, split_index, with_labels
from muralab.demo.dataset import default_folder, is_synthetic, write_demo
from muralab.demo.plan import PARTS
from muralab.errors import SettingsError

DEMO = "demo"
AUTO = "auto"
"""The protocol that fits the data: `valid-as-test` for a MURA tree; a manifest's own split, or a drawn test set."""
TEST_FRACTION = 0.2
"""Of the patients of a manifest without a split."""
VALIDATION_FRACTION = {True: 0.25, False: 0.15}
"""Of the training patients, for synthetic and for real data: on the small demo, less could not choose a model."""
Progress = Callable[[str], Callable[[int, int], None]]
"""Title of a task -> function of (done, total)."""


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A data set before decoding; its index is read and split once."""

    data: str
    """`demo`, or the path of a MURA tree or of a manifest."""
    part: str
    protocol: str = AUTO
    """As in `Splits`, or AUTO."""
    seed: int = 0
    validation_fold: tuple[int, int] | None = None
    """See `split_index`."""
    image_root: str | None = None
    """The folder that a manifest's image paths start from; None: its own."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Those of a manifest's columns that have other names, see `read_manifest`."""
    sets: tuple[str, ...] = SETS
    """The sets that must have images of both classes."""
    label_corrections: str | None = None
    """Path of a table of what readers decided about studies, see `read_corrections`."""

    @property
    def is_demo(self) -> bool:
        """Whether this is the demo, which is drawn when it is first used."""
        return self.data == DEMO

    @property
    def is_synthetic(self) -> bool:
        """Whether the pictures were drawn by a program."""
        return is_synthetic(self.root)

    def draw_demo(self, progress: Progress) -> None:
        """Draw the demo, if it is named and missing, with progress."""
        if self.is_demo:
            write_demo(default_folder(), progress=progress("drawing the demo's synthetic radiographs"))

    def checked(self) -> DatasetSource:
        """Itself, indexed and split; the demo is not even drawn.

        Raises:
            DataError: the data or the part do not exist, files are missing, rows of a manifest or of label corrections
                cannot be used, or a set lacks a class.
            SettingsError: an unknown protocol or one that does not fit the data, or an impossible seed.
        """
        if not self.is_demo:
            _ = self.split_of_all
        return self

    @property
    def n_images(self) -> int:
        """Images to decode; 0 for the demo, which is small and may not be drawn yet."""
        return 0 if self.is_demo else len(self.index)

    @cached_property
    def manifest(self) -> Manifest | None:
        """The manifest; None for a MURA tree."""
        if self.is_demo or not is_manifest(self.data):
            return None
        return read_manifest(Path(self.data), self.part, root=self.image_root, columns=self.columns)

    @cached_property
    def root(self) -> Path:
        """The folder that image names start from: of a MURA tree the one that holds `train/` and `valid/`."""
        if self.manifest is not None:
            return self.manifest.root
        return write_demo(default_folder()) if self.is_demo else find_root(Path(self.data))

    @property
    def location(self) -> str:
        """The path of the manifest or of the MURA tree."""
        return str(self.root if self.manifest is None else self.manifest.path)

    @cached_property
    def _tree(self) -> Tree:
        """What the folders of a MURA tree hold."""
        return read_tree(self.root, self.part)

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per image, including unreadable ones, with corrected labels."""
        return self._given if self.corrections is None else self.corrections.apply(self._given)

    @property
    def _given(self) -> pd.DataFrame:
        """The index with the labels that the data set itself has."""
        return self._tree.table if self.manifest is None else self.manifest.index

    @cached_property
    def corrections(self) -> LabelCorrections | None:
        """What readers decided about the labels; None where nobody was asked.

        Raises:
            DataError: the file's rows cannot be used.
        """
        if self.label_corrections is None:
            return None
        return read_corrections(
            Path(self.label_corrections), self._given, root=self.root, elsewhere=self._is_study_elsewhere
        )

    def _is_study_elsewhere(self, name: str) -> bool:
        """Whether a study is of another part of the data set."""
        if self.manifest is not None:
            return name in self.manifest.other_studies
        return self.part != ALL_PARTS and is_study(self.root, name) and not is_study(self.root, name, self.part)

    def name_key(self, folder: Path, shared: Path | None = None) -> NameKey | None:
        """The key of the data set's coded names; None for generated images, whose names are shown.

        Args:
            folder: of this machine's keys.
            shared: a key file that a team uses on several machines.

        Raises:
            DataError: the folder or a key cannot be read or written.
            SettingsError: `shared` is not a key file.
        """
        return None if self.is_synthetic else find_key(folder, self.location, self.index, shared=shared)

    @property
    def parts(self) -> list[str]:
        """All parts of the data set, sorted."""
        return parts_of(self.root) if self.manifest is None else list(self.manifest.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading the manifest or the tree found, besides its images, and what is corrected."""
        found = self._tree.notes if self.manifest is None else self.manifest.notes
        return found if self.corrections is None else (*found, self.corrections.sentence())

    @property
    def split_protocol(self) -> str:
        """The protocol that AUTO stands for.

        Raises:
            SettingsError: the protocol does not fit the data.
        """
        if self.manifest is None:
            if self.protocol not in (AUTO, *PROTOCOLS):
                raise SettingsError(
                    f"{self.protocol}: {self.data} is a MURA tree, which has its own test set. Give "
                    f"protocol={PROTOCOLS[0]} or protocol={PROTOCOLS[1]}."
                )
            return PROTOCOLS[0] if self.protocol == AUTO else self.protocol
        if self.manifest.has_split:
            if self.protocol not in (AUTO, MANIFEST_PROTOCOL):
                raise SettingsError(
                    f"{self.protocol}: the manifest {self.data} has its own split, in the column "
                    f"{self.manifest.columns['split']}. Leave the option out, or remove the column."
                )
            return MANIFEST_PROTOCOL
        if self.protocol in (*PROTOCOLS, MANIFEST_PROTOCOL):
            raise SettingsError(
                f"protocol={self.protocol}: the manifest {self.data} has no column split. Give test_fraction or "
                "test_folds, or add the column; `evaluate` can use all images: set=all."
            )
        return f"test_fraction={TEST_FRACTION:g}" if self.protocol == AUTO else self.protocol

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
                index if self.corrections is None else self.corrections.undo(index),
                protocol=self.split_protocol,
                seed=self.seed,
                validation_fraction=VALIDATION_FRACTION[self.is_synthetic],
                validation_fold=self.validation_fold,
                needed=self.sets if self.corrections is None else (),
            )
        notes = tuple(str(warning.message) for warning in caught)
        if self.corrections is None:
            return splits, notes
        # Drawn by the labels of before: figures with and without corrections are of the same patients.
        splits = with_labels(splits, self.corrections.apply, self.sets)
        return splits, (*notes, *_correction_notes(splits, self.corrections))


def require_data(data: str, part: str) -> None:
    """Refuse a data set that is not on this machine, or a part that it does not have, without reading or drawing it.

    Args:
        data: as in `DatasetSource`, not a URI.
        part: of a manifest it is looked up when its rows are read.

    Raises:
        DataError: names what there is.
    """
    if data == DEMO:
        require_part("The demo", part, sorted(plan.part for plan in PARTS))
    elif is_manifest(data):
        require_manifest(Path(data).absolute())
    else:
        root = find_root(Path(data))
        require_part(f"The tree {root}", part, parts_of(root))


def _correction_notes(splits: Splits, corrections: LabelCorrections) -> list[str]:
    """A note where labels that models are selected by or tested on are other ones than in runs without corrections."""
    changed = set(corrections.changed["study"])
    counts = {name: table.loc[table["study"].isin(changed), "study"].nunique() for name, table in splits.items()}
    if not counts["validation"] + counts["test"]:
        return []
    return [
        f"Relabelled are {counts['train']:,} studies of train, {counts['validation']:,} of validation and "
        f"{counts['test']:,} of test. If readers saw only studies that a model had answered against their label, test "
        "figures rise for that reason alone: have a random share of the others read as well."
    ]
