"""What a run was trained, selected and tested on: the table that it logged, or its split rebuilt from the data."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from muralab.data.name_keys import find_key
from muralab.data.names import code_names
from muralab.errors import MuraLabError
from muralab.tracking.artifacts import download_artifact, key_of_run, read_datasets
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
    """The path of the tree or the manifest on the machine that wrote the run; empty where it is not known."""
    fingerprint: str = ""
    names: str = ""
    """Id of the key that its names are coded with; empty where they are names."""

    def is_same_tree(self, root: str, fingerprint: str = "", names: str = "") -> bool:
        """Whether its names mean the same as those of the data at a path, or of the split of a fingerprint.

        Args:
            root: path of the tree or the manifest.
            fingerprint: of a split.
            names: id of the key that the other names are coded with. Codes of different keys never agree.
        """
        same_path = bool(self.root and root) and Path(self.root).resolve() == Path(root).resolve()
        return self.names == names and (same_path or bool(fingerprint and self.fingerprint == fingerprint))


def read_trained_split(
    store: Store, run_id: str, *, roots: Collection[str] = (), unreadable: Collection[str] = ()
) -> TrainedSplit | None:
    """The split of a trained run: as logged, or rebuilt if that gives the fingerprint that the run states.

    Args:
        store: where the run is.
        run_id: of the run that trained.
        roots: paths to try besides the one that the run names, whose data may have moved.
        unreadable: images that no split has.

    Returns:
        None where neither is possible, or there is no such run.

    Raises:
        StoreError: the store failed.
    """
    tags = read_tags(store, run_id)
    if not tags:
        return None
    data = read_datasets(store, run_id)
    named = next((data[context] for context in ("training", "validation", "test") if context in data), None)
    root = "" if named is None else named.source
    fingerprint = tags.get(Tag.SPLIT_FINGERPRINT, "")
    key = key_of_run(store, run_id, tags)
    names = names_of_run(store, run_id, tags)
    for holder in (run_id, tags.get(Tag.PARENT)):
        rows = read_split_table(store, holder) if holder else None
        if rows is not None:
            return TrainedSplit(rows=code_names(rows, key), root=root, fingerprint=fingerprint, names=names)
    for tree in dict.fromkeys([root, *roots]):
        image_root = None if named is None else named.image_root
        found = rebuild_split(store, tags, Path(tree), unreadable, image_root=image_root) if tree else None
        if found is not None and found.fingerprint == fingerprint:
            return found
    return None


def names_of_run(store: Store, run_id: str, tags: Mapping[str, str]) -> str:
    """Id of the key that the names of a run's tables are coded with, as they are read; empty where they are names."""
    key = key_of_run(store, run_id, tags)
    return tags.get(Tag.NAMES, "") if key is None else key.id


def read_split_table(store: Store, run_id: str, *, trained: bool = True) -> pd.DataFrame | None:
    """The table that a run logged; None where it logged none, or there is no such run.

    Args:
        store: where the run is.
        run_id: its id.
        trained: whether a table without training images counts as none, as that of an evaluation may.

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
    known = {"image", "patient", "set"} <= set(rows)
    return rows if known and not (trained and (rows["set"] != "train").all()) else None


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
    store: Store,
    tags: Mapping[str, str],
    path: Path,
    unreadable: Collection[str] = (),
    *,
    image_root: str | None = None,
) -> TrainedSplit | None:
    """Split a data set as a run's tags describe it.

    Args:
        store: knows where the keys of coded names are.
        tags: of the run: protocol, seed, part, and the columns of its manifest.
        path: of the MURA tree or the manifest.
        unreadable: names of images that are left out before the split.
        image_root: the folder that a manifest's image paths start from; None: its own.

    Returns:
        One row per image (set, image, patient), with the codes of the data's key; None if it cannot be split so.
    """
    from muralab.data.source import DatasetSource

    protocol, seed = tags.get(Tag.PROTOCOL, ""), tags.get(Tag.SEED, "")
    if not (protocol and seed and path.exists()):
        return None
    source = DatasetSource(
        data=str(path),
        part=tags.get(Tag.PART, ""),
        protocol=protocol,
        seed=int(seed),
        image_root=image_root,
        columns=json.loads(tags.get(Tag.COLUMNS) or "{}"),
    )
    try:
        splits, _ = source.split_without(unreadable)
    except MuraLabError:
        return None
    rows = pd.concat([table[["image", "patient"]].assign(set=name) for name, table in splits.items()])
    coded = store.keys is not None and tags.get(Tag.SYNTHETIC) != "true"
    key = find_key(store.keys, path, source.index) if store.keys is not None and coded else None
    return TrainedSplit(
        rows=code_names(rows.reset_index(drop=True), key),
        root=str(path),
        fingerprint=splits.fingerprint,
        names="" if key is None else key.id,
    )
