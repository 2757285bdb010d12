"""A data set in an object store, copied to this machine; later commands download only what has changed.

    mirrors/<digest of the URI>/uri             the URI
    mirrors/<digest of the URI>/downloads.csv   remote size and time of each file, and the digest of its copy
    mirrors/<digest of the URI>/data/           the MURA tree, or the manifest and its images

Of a tree only the wanted part is downloaded, of a manifest only the images that it names. A file is downloaded again if
its size or time has changed in the store, or if its copy has been altered.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.digests import FileDigests
from muralab.data.manifest import SUFFIXES, find_columns, image_names, is_manifest
from muralab.data.mura import ALL_PARTS, OFFICIAL_SPLITS
from muralab.data.sheet import read_sheet
from muralab.demo.dataset import NOTICE_NAME
from muralab.disk import free_bytes
from muralab.errors import DataError, DiskError
from muralab.locks import locked
from muralab.storage import Storage, StoredFile, patiently
from muralab.threads import map_in_threads

MIRRORS = "mirrors"
URI_FILE, DOWNLOADS, DATA = "uri", "downloads.csv", "data"
WORKERS = 16
"""Downloads at once: each waits for the network most of its time."""
STATE = ["name", "size", "modified_ns"]
OUTAGE_S = 300.0
"""How long a download waits for a store that does not answer."""
Progress = Callable[[str], Callable[[int, int], None]]


def mirror_data(uri: str, part: str, cache: Path, progress: Progress, columns: Mapping[str, str] | None = None) -> Path:
    """Bring the copy of a data set on this machine up to date.

    Args:
        uri: of a MURA tree, of the folder that contains it, or of a manifest; such as s3://bucket/MURA-v1.1.
        part: the body part that is needed, or `all`; of a manifest all its images are downloaded.
        cache: holds the copies.
        progress: reports the downloads.
        columns: those of a manifest's columns that have other names.

    Returns:
        The path of the copy: of the tree, or of the manifest.

    Raises:
        SettingsError: nothing opens such a URI, or it holds credentials.
        StorageError: it cannot be read.
        DataError: there is no MURA tree, or not the part.
        DiskError: the disk is too small.
    """
    folder = cache / MIRRORS / hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / URI_FILE) as path:
        path.write_text(uri, encoding="utf-8")
    with locked(folder / "lock"):
        if is_manifest(uri):
            return _fetch_manifest(uri, folder, progress, columns or {})
        return _fetch_tree(uri, part, folder, progress)


def path_or_uri(path: str, uri: str) -> str:
    """What to read instead of a path that a run recorded: the URI that it was copied from, where the copy is gone.

    Args:
        path: that the run recorded.
        uri: of what it was a copy of; empty for any other path.
    """
    return uri if uri and not Path(path).exists() else path


def uri_of(path: str) -> str:
    """The URI that a path is a copy of; empty for any other path."""
    for folder in (Path(path), *Path(path).parents):
        if folder.name == DATA and folder.parent.parent.name == MIRRORS:
            file = folder.parent / URI_FILE
            return file.read_text(encoding="utf-8") if file.is_file() else ""
    return ""


def _fetch_manifest(uri: str, folder: Path, progress: Progress, columns: Mapping[str, str]) -> Path:
    storage, name = Storage(uri, option="data").split()
    mirror = _Mirror(storage, folder)
    if not mirror.update([name], progress("fetching the manifest")):
        raise DataError(f"data={uri}: there is no file {name}.")
    path = folder / DATA / name
    sheet = read_sheet(path)
    images = image_names(sheet.cells[find_columns(sheet, columns)["image"]], path.parent)
    mirror.update(sorted(set(filter(_is_below, images))), progress("fetching images"))
    return path


def _fetch_tree(uri: str, part: str, folder: Path, progress: Progress) -> Path:
    mirror = _Mirror(Storage(uri, option="data"), folder)
    tree, parts = mirror.find_tree()
    known = {_part_of(name) for name in parts}
    if part not in (ALL_PARTS, *known):
        raise DataError(f"data={uri} has no part '{part}'. It has: {', '.join(sorted(known)) or 'none'} (or all).")
    for name in parts:  # the parts of a tree are known by their folders
        (folder / DATA / name).mkdir(parents=True, exist_ok=True)
    names = mirror.storage.names(tree)
    tables = [_join(tree, name) for name in names if name.endswith(".csv") or name == NOTICE_NAME]
    mirror.update(tables, progress("fetching the lists"))
    mirror.update_folders([name for name in parts if part in (ALL_PARTS, _part_of(name))], progress("fetching images"))
    mirror.forget(tree, parts=parts, tables=tables)
    return folder / DATA / tree


@dataclass(frozen=True)
class _Mirror:
    """Files of a storage and their copies in a folder."""

    storage: Storage
    folder: Path

    def find_tree(self) -> tuple[str, list[str]]:
        """The folder that holds `train/` and `valid/`, and its folders of body parts, such as train/XR_WRIST.

        It is the storage's own, or the MURA folder directly inside it.

        Raises:
            DataError: there is none.
        """
        folders = self.storage.folders("")
        if not folders and not self.storage.names(""):
            raise DataError(f"data={self.storage.uri}: there is nothing. Correct the URI.")
        for name in ["", *(name for name in folders if name.startswith("MURA"))]:
            if parts := self._find_parts(name):
                return name, parts
        raise DataError(
            f"No MURA tree in {self.storage.uri}. Looked for train/XR_*/ and valid/XR_*/ in it and in every folder "
            f"named MURA*. It has the folders: {', '.join(folders[:10]) or 'none'}. "
            f"A manifest's URI ends in {' or '.join(SUFFIXES)}."
        )

    def _find_parts(self, tree: str) -> list[str]:
        return [
            _join(tree, split, name)
            for split in OFFICIAL_SPLITS
            for name in self.storage.folders(_join(tree, split))
            if name.startswith("XR_")
        ]

    def update_folders(self, names: Sequence[str], progress: Callable[[int, int], None]) -> None:
        """Remove copies of files that are gone from some folders, and download all others."""
        remote = [file for name in names for file in self.storage.walk(name) if _is_below(file.name)]
        known = {file.name for file in remote}
        for name in names:
            for path in sorted((self.folder / DATA / name).rglob("*"), reverse=True):  # a folder after its files
                if path.is_dir():
                    with contextlib.suppress(OSError):  # it has files
                        path.rmdir()
                elif path.relative_to(self.folder / DATA).as_posix() not in known:
                    path.unlink()
        self._download_changed(remote, progress)

    def update(self, names: Sequence[str], progress: Callable[[int, int], None]) -> int:
        """Download some files, and count them; of those that do not exist there is no copy afterwards."""
        remote = self.storage.look_up(names)
        for name in {*names} - {file.name for file in remote}:
            (self.folder / DATA / name).unlink(missing_ok=True)
        self._download_changed(remote, progress)
        return len(remote)

    def forget(self, tree: str, *, parts: Sequence[str], tables: Sequence[str]) -> None:
        """Remove copies of lists and of parts that are gone: a list overrules what folders say."""
        root, known = self.folder / DATA / tree, {*parts, *tables}
        for path in [*root.glob("*.csv"), *(path for split in OFFICIAL_SPLITS for path in (root / split).glob("XR_*"))]:
            if path.relative_to(self.folder / DATA).as_posix() in known:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _download_changed(self, remote: Sequence[StoredFile], progress: Callable[[int, int], None]) -> None:
        recorded = self._read()
        state = pd.DataFrame([(file.name, file.size, file.modified_ns) for file in remote], columns=STATE)
        state["path"] = [str(self.folder / DATA / name) for name in state["name"]]
        before = recorded.reindex(state["name"])
        unchanged = (
            (before["size"].to_numpy() == state["size"].to_numpy())
            & (before["modified_ns"].to_numpy() == state["modified_ns"].to_numpy())
            & (before["digest"].to_numpy() == np.array(_digests(state, self.folder), dtype=object))
        )
        changed = [file for file, is_unchanged in zip(remote, unchanged) if not is_unchanged]
        if not changed:
            return
        self._check_space(changed)
        done = set(state.loc[unchanged, "name"])
        try:
            names = map_in_threads(self._download, changed, workers=WORKERS, name="download")
            for number, name in enumerate(names, start=1):
                done.add(name)
                progress(number, len(changed))
        finally:  # so that an interrupted download resumes
            self._write(recorded, state[state["name"].isin(done)])

    def _check_space(self, files: Sequence[StoredFile]) -> None:
        n_bytes, free = sum(file.size for file in files), free_bytes(self.folder)
        if n_bytes > free:
            raise DiskError(
                f"{self.storage.uri}: {len(files):,} files to download take {n_bytes / 2**30:.1f} GiB, and "
                f"{self.folder} has {free / 2**30:.1f} GiB free. Free some space, or set "
                "XDG_CACHE_HOME to a folder on another disk."
            )

    def _download(self, file: StoredFile) -> str:
        path = self.folder / DATA / file.name
        patiently(partial(self.storage.download, file.name, path), OUTAGE_S)
        if path.stat().st_size != file.size:  # replaced meanwhile, or cut off on the way
            raise DataError(f"{self.storage.uri}: {file.name} changed while it was downloaded. Try again.")
        return file.name

    def _read(self) -> pd.DataFrame:
        columns = ["size", "modified_ns", "digest"]
        try:
            recorded = pd.read_csv(
                self.folder / DOWNLOADS,
                index_col="name",
                dtype={"name": str, "size": int, "modified_ns": int, "digest": str},
                keep_default_na=False,
            )[columns]
        except (OSError, ValueError, TypeError, KeyError):  # missing or damaged: everything is downloaded again
            recorded = pd.DataFrame(columns=columns, index=pd.Index([], name="name"))
        return recorded[~recorded.index.duplicated()]

    def _write(self, recorded: pd.DataFrame, done: pd.DataFrame) -> None:
        done = done.assign(digest=_digests(done, self.folder)).set_index("name")[list(recorded.columns)]
        rows = pd.concat([recorded[~recorded.index.isin(done.index)], done])
        with atomic_path(self.folder / DOWNLOADS) as path:
            rows.to_csv(path)


def _digests(state: pd.DataFrame, folder: Path) -> list[str]:
    """Digest of each copy; empty where there is none."""
    table = state.rename(columns={"name": "image"})
    digests = FileDigests(table, folder)
    digests.read()
    return digests.of(table)


def _part_of(name: str) -> str:
    """The body part of a folder such as train/XR_WRIST."""
    return name.rpartition("/XR_")[2].lower()


def _join(*names: str) -> str:
    return "/".join(filter(None, names))


def _is_below(name: str) -> bool:
    """Whether a name stays in its folder; an object's key may hold anything."""
    return bool(name) and not name.startswith("/") and ".." not in name.split("/")
