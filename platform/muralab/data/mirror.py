"""A data set in an object store: a copy on this machine, of which later commands fetch only what has changed.

    mirrors/<digest of the URI>/address      the URI
    mirrors/<digest of the URI>/fetched.csv  name, size and time there, digest of the bytes here
    mirrors/<digest of the URI>/data/        the MURA tree, or the manifest and its images

Of a tree only the wanted part is fetched, of a manifest only the images that it names. A file whose size or time has
changed there, or whose bytes have changed here, is fetched again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.digests import FileDigests
from muralab.data.manifest import SUFFIXES, find_columns, image_names
from muralab.data.mura import ALL_PARTS, OFFICIAL_SPLITS
from muralab.data.sheet import read_sheet
from muralab.demo.dataset import NOTICE_NAME
from muralab.disk import free_bytes
from muralab.errors import DataError, DiskError
from muralab.locks import locked
from muralab.storage import Storage, StoredFile, patiently
from muralab.threads import map_in_threads

MIRRORS = "mirrors"
ADDRESS, FETCHED, DATA = "address", "fetched.csv", "data"
WORKERS = 16
"""Files that are fetched at once: each waits for the network most of its time."""
STATE = ["name", "size", "modified_ns"]
OUTAGE_S = 300.0
"""How long a file is waited for while the store does not answer."""
Progress = Callable[[str], Callable[[int, int], None]]


def is_uri(data: str) -> bool:
    """Whether a data set is named by a URI rather than by a path."""
    return "://" in data


def mirror_data(uri: str, part: str, cache: Path, progress: Progress, columns: Mapping[str, str] | None = None) -> Path:
    """Bring the copy of a data set on this machine up to date.

    Args:
        uri: of a MURA tree, of the folder that contains it, or of a manifest; such as s3://bucket/MURA-v1.1.
        part: the body part that is needed, or `all`; of a manifest all its images are fetched.
        cache: holds the copies.
        progress: reports the fetching.
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
    with atomic_path(folder / ADDRESS) as path:
        path.write_text(uri, encoding="utf-8")
    with locked(folder / "lock"):
        if PurePosixPath(urlsplit(uri).path).suffix.lower() in SUFFIXES:
            return _fetch_manifest(uri, folder, progress, columns or {})
        return _fetch_tree(uri, part, folder, progress)


def address_of(path: str) -> str:
    """The URI that a path is a copy of; empty for any other path."""
    for folder in (Path(path), *Path(path).parents):
        if folder.name == DATA and folder.parent.parent.name == MIRRORS:
            file = folder.parent / ADDRESS
            return file.read_text(encoding="utf-8") if file.is_file() else ""
    return ""


def _fetch_manifest(uri: str, folder: Path, progress: Progress, columns: Mapping[str, str]) -> Path:
    parts = urlsplit(uri)
    above, _, name = parts.path.rpartition("/")
    mirror = _Mirror(Storage(urlunsplit(parts._replace(path=above)), option="data"), folder)
    if not mirror.update([name], progress("fetching the manifest")):
        raise DataError(f"data={uri}: there is no file {name}.")
    path = folder / DATA / name
    sheet = read_sheet(path)
    images = image_names(sheet.cells[find_columns(sheet, columns)["image"]], path.parent)
    mirror.update(sorted(set(filter(_is_below, images))), progress("fetching images"))
    return path


def _fetch_tree(uri: str, part: str, folder: Path, progress: Progress) -> Path:
    mirror = _Mirror(Storage(uri, option="data"), folder)
    above = mirror.find_tree()
    parts = {
        split: [name for name in mirror.storage.folders(_join(above, split)) if name.startswith("XR_")]
        for split in OFFICIAL_SPLITS
    }
    known = {name[3:].lower() for names in parts.values() for name in names}
    if part not in (ALL_PARTS, *known):
        raise DataError(f"{uri} has no part '{part}'. It has: {', '.join(sorted(known)) or 'none'} (or all).")
    wanted = [
        _join(above, split, name)
        for split, names in parts.items()
        for name in names
        if part in (ALL_PARTS, name[3:].lower())
    ]
    for split, names in parts.items():  # the tree's parts are known by their folders
        for name in names:
            (folder / DATA / above / split / name).mkdir(parents=True, exist_ok=True)
    lists = [_join(above, name) for name in mirror.storage.names(above) if name.endswith(".csv") or name == NOTICE_NAME]
    mirror.update(lists, progress("fetching the lists"))
    mirror.update_folders(wanted, progress("fetching images"))
    return folder / DATA / above


@dataclass(frozen=True)
class _Mirror:
    """Files of a storage and their copies in a folder."""

    storage: Storage
    folder: Path

    def find_tree(self) -> str:
        """The folder that holds `train/` and `valid/`: the storage's own, or the MURA folder directly inside it.

        Raises:
            DataError: there is none.
        """
        folders = self.storage.folders("")
        for name in ["", *(name for name in folders if name.startswith("MURA"))]:
            if set(OFFICIAL_SPLITS) & set(folders if not name else self.storage.folders(name)):
                return name
        raise DataError(
            f"No MURA tree in {self.storage.uri}. Looked for train/ and valid/ in it and in every folder named MURA*. "
            f"It has the folders: {', '.join(folders[:10]) or 'none'}. "
            f"A manifest's URI ends in {' or '.join(SUFFIXES)}."
        )

    def update_folders(self, names: Iterable[str], progress: Callable[[int, int], None]) -> None:
        """Fetch all files of some folders, and remove those that are not there any more."""
        there = [file for name in names for file in self.storage.walk(name) if _is_below(file.name)]
        self._fetch(there, progress)
        known = {file.name for file in there}
        for name in names:
            for path in (self.folder / DATA / name).rglob("*"):
                if path.is_file() and path.relative_to(self.folder / DATA).as_posix() not in known:
                    path.unlink()

    def update(self, names: list[str], progress: Callable[[int, int], None]) -> int:
        """Fetch some files, and count them; those that do not exist are left out."""
        there = self.storage.look_up(names)
        self._fetch(there, progress)
        return len(there)

    def _fetch(self, there: list[StoredFile], progress: Callable[[int, int], None]) -> None:
        fetched = self._read()
        state = pd.DataFrame([(file.name, file.size, file.modified_ns) for file in there], columns=STATE)
        state["path"] = [str(self.folder / DATA / name) for name in state["name"]]
        digests = _digests(state, self.folder)
        before = fetched.reindex(state["name"])
        same = (
            (before["size"].to_numpy() == state["size"].to_numpy())
            & (before["modified_ns"].to_numpy() == state["modified_ns"].to_numpy())
            & (before["digest"].to_numpy() == digests)
        )
        missing = [file for file, is_same in zip(there, same) if not is_same]
        if not missing:
            return
        n_bytes, free = sum(file.size for file in missing), free_bytes(self.folder)
        if n_bytes > free:
            raise DiskError(
                f"{self.storage.uri}: {len(missing):,} files to fetch take {n_bytes / 2**30:.1f} GiB, and "
                f"{self.folder} has {free / 2**30:.1f} GiB free. Free some space, or set "
                "XDG_CACHE_HOME to a folder on another disk."
            )
        done = {file.name for file, is_same in zip(there, same) if is_same}
        try:
            for name in map_in_threads(self._download, missing, workers=WORKERS, name="fetch"):
                done.add(name)
                progress(len(done) - len(there) + len(missing), len(missing))
        finally:  # an interrupted fetching goes on where it was
            self._write(fetched, state[state["name"].isin(done)])

    def _download(self, file: StoredFile) -> str:
        path = self.folder / DATA / file.name
        patiently(partial(self.storage.download, file.name, path), OUTAGE_S)
        if path.stat().st_size != file.size:  # replaced meanwhile, or cut off on the way
            raise DataError(f"{self.storage.uri}: {file.name} changed while it was fetched. Try again.")
        return file.name

    def _read(self) -> pd.DataFrame:
        file = self.folder / FETCHED
        if not file.is_file():
            return pd.DataFrame(columns=["size", "modified_ns", "digest"], index=pd.Index([], name="name"))
        return pd.read_csv(file, index_col="name", dtype={"name": str, "digest": str}, keep_default_na=False)

    def _write(self, fetched: pd.DataFrame, done: pd.DataFrame) -> None:
        done = done.assign(digest=_digests(done, self.folder)).set_index("name")[list(fetched.columns)]
        rows = pd.concat([fetched[~fetched.index.isin(done.index)], done])
        with atomic_path(self.folder / FETCHED) as path:
            rows.to_csv(path)


def _digests(state: pd.DataFrame, folder: Path) -> list[str]:
    """Digest of each file here; empty where there is none."""
    table = state.rename(columns={"name": "image"})
    digests = FileDigests(table, folder)
    digests.read()
    return digests.of(table)


def _join(*names: str) -> str:
    return "/".join(filter(None, names))


def _is_below(name: str) -> bool:
    """Whether a name stays in its folder; an object's key may hold anything."""
    return bool(name) and not name.startswith("/") and ".." not in name.split("/")
