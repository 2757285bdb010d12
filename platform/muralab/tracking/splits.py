"""What a run was trained, selected and tested on: the table that it logged, or its split rebuilt from the tree."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from muralab.errors import MuraLabError
from muralab.tracking.artifacts import download_artifact, read_datasets
from muralab.tracking.failures import store_error
from muralab.tracking.store import Store
from muralab.tracking.stored_names import tags_of
from muralab.tracking.tags import Tag

SPLIT_TABLE = "split.csv"
"""Artifact of a run that trains, or of the sweep above it: one row per image, with the identity of its picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedSplit:
    """The sets of a trained run."""

    rows: pd.DataFrame
    """One row per image: set, image, patient; where the run logged its split, also the identity of the picture."""
    root: str = ""
    """The tree's path on the machine that wrote the run; empty where it is not known."""
    fingerprint: str = ""

    def is_same_tree(self, root: str, fingerprint: str = "") -> bool:
        """Whether it is known to be of the tree at a path, or equal to the split of a fingerprint."""
        same_path = bool(self.root and root) and Path(self.root).resolve() == Path(root).resolve()
        return same_path or bool(fingerprint and self.fingerprint == fingerprint)


def read_trained_split(
    store: Store, run_id: str, *, roots: Collection[str] = (), unreadable: Collection[str] = ()
) -> TrainedSplit | None:
    """The split of a trained run: as logged, or rebuilt if that gives the fingerprint that the run states.

    Args:
        store: where the run is.
        run_id: of the run that trained.
        roots: trees to try besides the one that the run names, which may have moved.
        unreadable: images of these trees that no split has.

    Returns:
        None where neither is possible, or there is no such run.

    Raises:
        StoreError: the store failed.
    """
    tags = read_tags(store, run_id)
    if not tags:
        return None
    data = read_datasets(store, run_id)
    root = next((data[context].source for context in ("training", "validation", "test") if context in data), "")
    fingerprint = tags.get(Tag.SPLIT_FINGERPRINT, "")
    for holder in (run_id, tags.get(Tag.PARENT)):
        rows = read_split_table(store, holder) if holder else None
        if rows is not None:
            return TrainedSplit(rows=rows, root=root, fingerprint=fingerprint)
    for tree in dict.fromkeys([root, *roots]):
        rows, found = rebuild_split(tags, Path(tree), unreadable) if tree else (None, "")
        if rows is not None and found == fingerprint:
            return TrainedSplit(rows=rows, root=tree, fingerprint=fingerprint)
    return None


def read_split_table(store: Store, run_id: str) -> pd.DataFrame | None:
    """The table that a run logged; None where it logged none with training images, or there is no such run.

    Raises:
        StoreError: the store failed.
    """
    try:
        logged = {item.path for item in store.client.list_artifacts(run_id)}
    except Exception as error:
        if _is_missing(error):
            return None
        raise store_error(store, f"list the artifacts of the run {run_id}", error) from error
    if SPLIT_TABLE not in logged:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifact(store, run_id, SPLIT_TABLE, Path(folder))
        try:
            rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        except ValueError:  # pandas' errors of an empty file, of one that is not a table or not text
            return None
    return rows if {"image", "patient", "set"} <= set(rows) and (rows["set"] == "train").any() else None


def read_tags(store: Store, run_id: str) -> dict[str, str]:
    """The tags of a run; empty where there is no such run, as of a version that was registered without one.

    Raises:
        StoreError: the store failed.
    """
    if not run_id:
        return {}
    try:
        return tags_of(store.client.get_run(run_id).data.tags)
    except Exception as error:
        if _is_missing(error):
            return {}
        raise store_error(store, f"read the run {run_id}", error) from error


def _is_missing(error: Exception) -> bool:
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def rebuild_split(
    tags: Mapping[str, str], root: Path, unreadable: Collection[str] = ()
) -> tuple[pd.DataFrame | None, str]:
    """Split a tree as a run's tags describe it.

    Args:
        tags: of the run: protocol, seed, part.
        root: of the tree.
        unreadable: images that are left out before the split.

    Returns:
        One row per image (set, image, patient) and the split's fingerprint; None and "" if the tree cannot be split so.
    """
    from muralab.data.dataset import VALIDATION_FRACTION
    from muralab.data.mura import read_index
    from muralab.data.splits import split_index

    protocol, seed = tags.get(Tag.PROTOCOL, ""), tags.get(Tag.SEED, "")
    if not (protocol and seed and root.is_dir()):
        return None, ""
    try:
        index = read_index(root, tags.get(Tag.PART, ""))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # patients on both sides: the training has warned
            splits = split_index(
                index[~index["image"].isin(set(unreadable))],
                protocol=protocol,
                seed=int(seed),
                validation_fraction=VALIDATION_FRACTION[tags.get(Tag.SYNTHETIC) == "true"],
            )
    except MuraLabError:
        return None, ""
    rows = pd.concat([table[["image", "patient"]].assign(set=name) for name, table in splits.items()])
    return rows.reset_index(drop=True), splits.fingerprint
