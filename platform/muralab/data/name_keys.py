"""The keys of coded names on this machine: one file per data set, in a folder beside the cache, readable by its owner.

    <folder>/<key id>.json           the secret, the paths of the data set, and a sample of its files
    <folder>/<key id>-<digest>.csv   code and name of every image, study and patient, to look codes up

A data set is recognised by its path, or, where it was moved or copied, by a sample of its files' names and sizes. A
team shares a key by giving one file (`names_key`) on all of its machines.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.names import NAMED, REAL, SECRET_BYTES, NameKey, new_key
from muralab.errors import DataError, SettingsError
from muralab.locks import locked

NAMES_FOLDER = "names"
"""Folder of the keys, beside the decoded images."""
SAMPLE = 64
"""Files that a data set is recognised by: those with the smallest digests of name and size."""
MIN_SHARED = 5
"""Of them, as many must be equal, and half of those that both could have: a data set may have grown since, and another
may have a part of its files."""
OWNER_ONLY = 0o600
TEAM = 0o640
"""Of a shared key: readable by its group, which is the folder's where the folder has the setgid bit."""


@dataclass(frozen=True, kw_only=True)
class _KeyFile:
    key: NameKey
    roots: tuple[str, ...] = ()
    sample: tuple[str, ...] = ()

    def to_text(self) -> str:
        content = {"secret": self.key.secret.hex(), "roots": self.roots, "sample": self.sample}
        return json.dumps(content, indent=1) + "\n"


def find_key(
    folder: Path, root: str | Path, images: pd.DataFrame | None = None, *, shared: Path | None = None
) -> NameKey:
    """The key of a data set; a new one where it has none.

    Args:
        folder: of this machine's keys; created if missing.
        root: the data set's path.
        images: `image` and `path` of its files, to recognise one that was moved; None: by its path alone.
        shared: a key file that a team uses on several machines; created if missing.

    Raises:
        DataError: the folder or a key cannot be read or written.
        SettingsError: `shared` is not a key file.
    """
    path = str(Path(root).resolve()) if str(root) else "not recorded"
    with _readable(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(folder / ".lock"):
            known = list(_read_all(folder))
            if shared is not None:
                _forget(folder, known, path)
                return _keep(folder, _KeyFile(key=read_shared_key(shared)), path, images)
            of_path = next((one for one in known if path in one.roots), None)
            if of_path is not None:
                return of_path.key
            moved = next((one for one in known if _is_same(one, images)), None)
            return _keep(folder, moved or _KeyFile(key=new_key()), path, images)


def known_keys(folder: Path | None) -> list[NameKey]:
    """All keys on this machine.

    Raises:
        DataError: one cannot be read.
    """
    if folder is None:
        return []
    with _readable(folder):
        return [one.key for one in _read_all(folder)]


def read_shared_key(file: Path) -> NameKey:
    """The key in a file that several machines use; a new one where the file is missing.

    Raises:
        SettingsError: it is not a key file, or cannot be read or written.
    """
    try:
        if not file.exists():
            _write(file, _KeyFile(key=new_key()).to_text(), mode=TEAM)
        return _parse(file.read_text(encoding="utf-8")).key
    except OSError as error:
        raise SettingsError(
            f"names_key={file} cannot be read or written ({error.strerror or error}). Give a file in an existing "
            "folder that only your team can read, and let the team's group read the file (chgrp, chmod 640)."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"names_key={file} is not a key file. Give a file that names_key has written, or the name of a new one."
        ) from error


def write_names(folder: Path, key: NameKey, index: pd.DataFrame) -> Path:
    """Write which name each code stands for, readable by its owner alone; returns the file.

    Args:
        folder: of this machine's keys.
        key: of the index.
        index: with codes, and names in the columns of `REAL`.

    Raises:
        DataError: it cannot be written.
    """
    digest = hashlib.blake2b("\n".join(index["image"]).encode(), digest_size=6).hexdigest()
    file = folder / f"{key.id}-{digest}.csv"
    with _readable(folder):
        if not file.exists():
            columns = [name for column in NAMED for name in (column, REAL[column])]
            _write(file, index[columns].to_csv(index=False))
    return file


def write_private(file: Path, text: str) -> None:
    """Write a file with names that only its owner can read.

    Raises:
        DataError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(file, text)
    except OSError as error:
        raise DataError(f"The table {file} cannot be written: {error.strerror or error}.") from error


def _keep(folder: Path, found: _KeyFile, path: str, images: pd.DataFrame | None) -> NameKey:
    """Store a key with one more path of its data set."""
    file = folder / f"{found.key.id}.json"
    if file.exists():
        found = _parse(file.read_text(encoding="utf-8"))
    sample = found.sample if images is None else _sample(found.key, images)
    _write(file, replace(found, roots=tuple(sorted({*found.roots, path})), sample=sample).to_text())
    return found.key


def _forget(folder: Path, known: Iterable[_KeyFile], path: str) -> None:
    """Let no other key claim a path that from now on has a shared one; runs that it coded still find it by its id."""
    for one in known:
        if path in one.roots:
            left = replace(one, roots=tuple(root for root in one.roots if root != path), sample=())
            _write(folder / f"{one.key.id}.json", left.to_text())


def _is_same(known: _KeyFile, images: pd.DataFrame | None) -> bool:
    if images is None or not known.sample:
        return False
    digests = set(_digests(known.key, images))
    largest = max(known.sample)
    comparable = digests if len(known.sample) < SAMPLE else {digest for digest in digests if digest <= largest}
    n_shared = len(comparable & set(known.sample))
    n_possible = min(len(comparable), len(known.sample))
    return n_shared > 0 and n_shared >= max(min(MIN_SHARED, n_possible), n_possible / 2)


def _sample(key: NameKey, images: pd.DataFrame) -> tuple[str, ...]:
    """The smallest keyed digests of the files' names and sizes: equal files of two trees are in both samples."""
    return tuple(heapq.nsmallest(SAMPLE, _digests(key, images)))


def _digests(key: NameKey, images: pd.DataFrame) -> Iterator[str]:
    return (key.code("file", text) for text in _names_and_sizes(images))


def _names_and_sizes(images: pd.DataFrame) -> Iterator[str]:
    for image, path in zip(images["image"], images["path"]):
        with contextlib.suppress(OSError):
            yield f"{image}\t{os.stat(path).st_size}"  # noqa: PTH116  (half the time of Path.stat)


def _read_all(folder: Path) -> Iterator[_KeyFile]:
    for file in sorted(folder.glob("*.json")):
        try:
            yield _parse(file.read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"The key file {file} is damaged. Restore it, or move it away to get a new key.") from error


def _parse(text: str) -> _KeyFile:
    content = json.loads(text)
    secret = bytes.fromhex(content["secret"])
    if len(secret) != SECRET_BYTES:
        raise ValueError("a secret of another length")
    return _KeyFile(key=NameKey(secret=secret), roots=tuple(content["roots"]), sample=tuple(content["sample"]))


def _write(file: Path, text: str, mode: int = OWNER_ONLY) -> None:
    with atomic_path(file) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        os.fchmod(handle, mode)  # whatever the umask
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as opened:
            opened.write(text)


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The keys of coded names in {folder} cannot be read or written ({error.strerror or error}). Make that "
            "folder yours, or set XDG_CACHE_HOME to one that is."
        ) from error
