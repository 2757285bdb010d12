"""Whether pictures on disk are still those that a run was trained, selected and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from muralab.data.audit.pictures import DIGEST_CHARACTERS, changed_pictures
from muralab.data.digests import FileDigests
from muralab.data.names import code_names
from muralab.tracking.artifacts import key_of_run
from muralab.tracking.splits import read_split_table, read_tags
from muralab.tracking.store import Store
from muralab.tracking.tags import Tag

SHOWN = 3
"""Names in a sentence."""


def read_pictures(store: Store, run_id: str) -> pd.DataFrame | None:
    """The split that a run, or the search above it, logged: image, set and, since there are such, digests of the files.

    Raises:
        StoreError: the store failed.
    """
    tags = read_tags(store, run_id)
    for holder in (run_id, tags.get(Tag.PARENT, "")):
        rows = read_split_table(store, holder) if holder else None
        if rows is not None:
            return code_names(rows, key_of_run(store, run_id, tags))
    return None


def find_changed(store: Store, run_id: str, table: pd.DataFrame, folder: Path) -> list[str] | None:
    """Images whose files differ from those that a run logged; missing files do.

    Args:
        store: holds the run.
        run_id: of a run that trained.
        table: images with the `path` of each, see `locate_files`.
        folder: remembers digests of files.

    Returns:
        Their names; None if the run logged no digests of these files.

    Raises:
        DataError: a file exists and cannot be read.
        StoreError: the store failed.
    """
    before = read_pictures(store, run_id)
    if before is None or "file" not in before:
        return None
    table = table[table["image"].isin(before["image"])].drop_duplicates("image")
    digests = FileDigests(table, folder)
    digests.read()
    files = [digest[:DIGEST_CHARACTERS] for digest in digests.of(table)]
    return changed_pictures(before, table[["image"]].assign(file=files))


def describe_pictures(changed: Sequence[str], n_images: int) -> str:
    """How many of a number of pictures, with the first names."""
    more = ", ..." if len(changed) > SHOWN else ""
    return f"{len(changed):,} of {n_images:,} pictures ({', '.join(changed[:SHOWN])}{more})"
