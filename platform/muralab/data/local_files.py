"""The files of images that a run names, on this machine: by their names below the data set's root, or by codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from muralab.data.mura import ALL_PARTS
from muralab.data.name_keys import known_keys
from muralab.data.names import REAL, NameKey, are_coded, code_names
from muralab.data.source import DatasetSource
from muralab.errors import DataError


def find_files(
    table: pd.DataFrame,
    root: Path,
    keys: Path | None,
    *,
    manifest: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """A table of images with the `path` of each; with codes also with the names (`REAL`) of the images.

    Args:
        table: with `image`, as a run logged it.
        root: the folder that image names start from.
        keys: folder of this machine's keys.
        manifest: that names the images; None: the root is a MURA tree.
        columns: of the manifest, where they have other names.

    Returns:
        The table; the path of an image that is not in the data set any more is empty.

    Raises:
        DataError: the names are coded, and their key is not on this machine.
    """
    if not are_coded(table):
        return table.assign(path=[str(root / image) for image in table["image"]])
    data = root if manifest is None else manifest
    if data.exists():
        source = DatasetSource(data=str(data), part=ALL_PARTS, image_root=str(root), columns=columns or {})
        index = _coded_index(table, source.index[["image", "path"]], keys)
    else:
        index = pd.DataFrame(columns=["image", REAL["image"], "path"], dtype=str)
    found = table[["image"]].merge(index, on="image", how="left").fillna("")
    return table.assign(**{REAL["image"]: found[REAL["image"]].to_numpy(), "path": found["path"].to_numpy()})


def missing_files(table: pd.DataFrame) -> list[str]:
    """The images of a table from `find_files` whose file is missing, by the names that may be logged."""
    return [image for image, path in zip(table["image"], table["path"]) if not (path and Path(path).is_file())]


def _coded_index(table: pd.DataFrame, index: pd.DataFrame, keys: Path | None) -> pd.DataFrame:
    """Code, name and path of all images of an index, with the key that the table was coded with."""
    known = known_keys(keys)
    best = max(known, key=lambda key: _n_known(table, index, key), default=None)
    if best is None or not _n_known(table, index, best):
        raise DataError(
            f"These images have codes of a key that is not on this machine ({len(known)} keys in {keys}). "
            "Work where the run was logged, or give its key file as names_key to any command that reads the data set."
        )
    return code_names(index, best, keep=True)


def _n_known(table: pd.DataFrame, index: pd.DataFrame, key: NameKey) -> int:
    """How many images of a table are in an index under a key."""
    return len(set(table["image"]) & {key.code("image", name) for name in index["image"]})
