"""The value range of a data set: found while its files are decoded, decided by its training images, remembered.

values-<names>-<content>.json     image -> lowest, highest, bits, signed; only images of files that do not say
                                  which values are black and white (`StoredValues`)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Literal, final

import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.cache import PixelCache, open_caches
from muralab.data.digests import FileDigests, names_key
from muralab.data.files import Consumer, ImageFile, Progress, read_images
from muralab.data.images.value_range import StoredValues, ValueRange, smallest_range

DECIDE: Literal["decide"] = "decide"
RangeChoice = ValueRange | None | Literal["decide"]
"""A range, None for what each file's type says, or `DECIDE` for that of the training images."""


@final
class StoredValuesIndex:
    """The stored values of a table's images, by image; empty for files of 8 bits or with windows."""

    def __init__(self, table: pd.DataFrame, folder: Path, digests: FileDigests) -> None:
        """Look up what is remembered of these files.

        Args:
            table: images (unique names) and their paths.
            folder: remembers values.
            digests: of the files; read, if there is something to look up by them.
        """
        self._folder, self._names, self._digests, self._table = Path(folder), names_key(table), digests, table
        self._image_of = dict(zip(table["path"], table["image"]))
        self._values: dict[str, StoredValues] = {}
        self.n_collected = 0
        if any(self._folder.glob(f"values-{self._names}-*.json")):
            digests.read()
        self.is_known = self._recall()

    def collect(self, _position: int, image: ImageFile) -> None:
        """A consumer of all files that are decoded; call `save` at the end."""
        self.n_collected += 1
        name = self._image_of[image.path]
        self._values.pop(name, None)
        if image.stored is not None:
            self._values[name] = image.stored

    def save(self) -> None:
        """Remember what was collected from all files."""
        self.is_known = True
        stored = {name: asdict(values) for name, values in sorted(self._values.items())}
        with contextlib.suppress(OSError):  # it only saves time
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._file()) as path:
                path.write_text(json.dumps(stored), encoding="utf-8")

    def range_of(self, training: pd.DataFrame) -> ValueRange | None:
        """The smallest range that holds every value of some images; None if their files all say what is white."""
        return smallest_range(self._values[image] for image in training["image"] if image in self._values)

    def _file(self) -> Path:
        return self._folder / f"values-{self._names}-{self._digests.key(self._table)}.json"

    def _recall(self) -> bool:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            stored = json.loads(self._file().read_text(encoding="utf-8"))
            self._values = {name: StoredValues(**values) for name, values in stored.items()}
            return True
        return False


def decode_in_range(
    table: pd.DataFrame,
    training: pd.DataFrame,
    *,
    value_range: RangeChoice,
    sizes: Iterable[int],
    folder: Path,
    digests: FileDigests,
    values: StoredValuesIndex,
    inspect: Consumer | None,
    progress: Progress,
) -> tuple[dict[int, PixelCache], ValueRange | None]:
    """Open the caches of a table's images in a range, or in that of its training images; see `open_caches`.

    Where nothing is remembered of the files, they are decoded once to find out. A second time is needed only if some of
    them do not say which values are black and white.

    Returns:
        The caches, and the range.
    """

    def open_with(chosen: ValueRange | None, inspect: Consumer | None) -> dict[int, PixelCache]:
        return open_caches(
            table,
            sizes=sizes,
            folder=folder,
            progress=progress,
            inspect=inspect,
            digests=digests,
            value_range=chosen,
            verify=True,
        )

    if value_range != DECIDE:
        return open_with(value_range, inspect), value_range
    if not values.is_known:
        found = open_with(None, call_all(values.collect, inspect))
        if not values.n_collected:  # complete, but what was found then is lost
            read_images(table["path"].tolist(), [values.collect], progress=progress)
        values.save()
        if values.range_of(training) is None:
            return found, None
    chosen = values.range_of(training)
    return open_with(chosen, inspect), chosen


def call_all(*consumers: Consumer | None) -> Consumer:
    """One consumer in place of several, of which some may be None."""

    def consume(position: int, image: ImageFile) -> None:
        for consumer in consumers:
            if consumer is not None:
                consumer(position, image)

    return consume
