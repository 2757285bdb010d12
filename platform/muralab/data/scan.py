"""Walk a folder and decide of every file whether it is a picture: by its content, for all commands alike.

scan = scan_folder(Path("/export"))
scan.pictures         files that hold a picture, or claim to by their suffix (the decoder says why one is damaged)
scan.unused           everything else that was found, each with its reason
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from muralab.data.headers import Header, may_lack_pixels, read_header
from muralab.data.images.kind import DICOM, HEAD_BYTES, describe, kind_of
from muralab.errors import numbered
from muralab.threads import map_in_threads

CLAIMING_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})
"""Suffixes, in any case, whose files are reported as damaged pictures if their content is none."""
HEAT_SUFFIX = ".heat.png"
"""Of heat maps that were written beside their image; they are not views."""
CHUNK = 64
"""Files per task of a thread."""
BUSY = 0.5
"""Share of its time that a thread computes, above which threads, which compute in turn, gain nothing."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPicture:
    """A file that holds a picture, or claims to."""

    path: str
    """Absolute, or relative to the working directory, as the folder was given."""
    name: str
    """Below the scanned folder, with slashes."""
    header: Header | None = None
    """Of a DICOM file, if it can be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unused:
    """A file or folder that was found and is not used."""

    name: str
    reason: str
    """Counted: equal for all files that are left out for it."""
    detail: str = ""
    """What else is known of this file."""

    @property
    def text(self) -> str:
        """Reason and detail."""
        return f"{self.reason} ({spell(self.detail)})" if self.detail else self.reason


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a folder holds, sorted by name."""

    pictures: list[FoundPicture] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    """Paths of folders that cannot be listed."""


def scan_folder(
    folder: Path,
    *,
    prefix: str = "",
    listed: Collection[str] = (),
    headers: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Find the pictures of a folder at any depth.

    Hidden files and folders are counted but not opened. Links are followed, each folder is visited once.

    Args:
        folder: any tree: a PACS export, MURA's, a folder of files.
        prefix: put in front of all names, such as "train/".
        listed: names of files that are pictures for sure; they are not opened.
        headers: whether every DICOM header is needed; otherwise only those of files that may lack pixels are read.
        workers: threads that open files; None takes one per core.
        progress: called with (files opened, files in total).
    """
    walk = _Walk()
    walk.visit(str(folder))
    n_base = len(str(folder).rstrip("/")) + 1
    named = [(path, prefix + path[n_base:]) for path in walk.files]
    found: list[FoundPicture | Unused] = [FoundPicture(path=path, name=name) for path, name in named if name in listed]
    found += _classify_all([(path, name) for path, name in named if name not in listed], headers, workers, progress)
    found += [Unused(name=prefix + path[n_base:], reason=reason) for path, reason in walk.unused]
    found.sort(key=lambda one: one.name)
    return Scan(
        pictures=[one for one in found if isinstance(one, FoundPicture)],
        unused=[one for one in found if isinstance(one, Unused)],
        unlisted=walk.unlisted,
    )


def _classify_all(
    named: Sequence[tuple[str, str]], headers: bool, workers: int | None, progress: Progress | None
) -> list[FoundPicture | Unused]:
    def classify_chunk(first: int) -> list[FoundPicture | Unused]:
        return [classify(path, name, headers=headers) for path, name in named[first : first + CHUNK]]

    started_s, used_s = time.perf_counter(), time.thread_time()
    found = classify_chunk(0)
    used_s, passed_s = time.thread_time() - used_s, time.perf_counter() - started_s
    if workers is None and used_s > BUSY * passed_s:
        workers = 0  # the disk answers at once: threads would only wait for each other
    if progress is not None and found:
        progress(len(found), len(named))
    starts = range(CHUNK, len(named), CHUNK)
    with closing(map_in_threads(classify_chunk, starts, workers=workers, name="muralab-scan")) as chunks:
        for chunk in chunks:
            found += chunk
            if progress is not None:
                progress(len(found), len(named))
    return found


def classify(path: str, name: str, *, headers: bool = True) -> FoundPicture | Unused:
    """Decide what one regular file is.

    Args:
        path: of the file.
        name: under which it is reported.
        headers: see `scan_folder`.
    """
    own_name = path.rpartition("/")[2].lower()  # neither a Path nor a file object per file: half of the time
    claims = own_name[own_name.rfind(".") :] in CLAIMING_SUFFIXES
    try:
        head, n_bytes = _read_head(path)
        kind = kind_of(head)
        is_needed = kind == DICOM and (headers or may_lack_pixels(head, n_bytes))
        header = read_header(path) if is_needed else None
    except OSError as error:
        if claims:  # whoever reads it reports the error
            return FoundPicture(path=path, name=name)
        return Unused(name=name, reason=f"cannot be read ({error.strerror or error})")
    is_directory = own_name == "dicomdir" and (header is None or bool(header.unused))
    if is_directory:
        return Unused(name=name, reason="DICOMDIR")
    if header is not None and header.unused:
        return Unused(name=name, reason=header.unused)
    if kind or claims:
        return FoundPicture(path=path, name=name, header=header)
    return Unused(name=name, reason=f"not a picture ({describe(head)})")


def _read_head(path: str) -> tuple[bytes, int]:
    """The first bytes of a file, and its size."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, HEAD_BYTES), os.fstat(file).st_size
    finally:
        os.close(file)


def find_heat_maps(names: Collection[str]) -> set[str]:
    """The files of one folder that are heat maps of others in it.

    >>> sorted(find_heat_maps(["image1.heat.png", "image1.png", "alone.heat.png"]))
    ['image1.heat.png']
    """
    heats = [name for name in names if name[-len(HEAT_SUFFIX) :].lower() == HEAT_SUFFIX]
    if not heats:
        return set()
    owners: set[str] = set()
    for name in set(names).difference(heats):  # with_suffix cuts a name at its last dot, other programs at the first
        owners |= {name, *(name[:at] for at, letter in enumerate(name) if letter == ".")}
    return {name for name in heats if name[: -len(HEAT_SUFFIX)] in owners}


def count_reasons(unused: Sequence[Unused]) -> dict[str, int]:
    """Reason -> number of files, the most frequent first."""
    return dict(Counter(one.reason for one in unused).most_common())


def unused_note(unused: Sequence[Unused], where: str) -> list[str]:
    """One note that counts the unused files by reason and lists the first of them; none if there are none."""
    if not unused:
        return []
    counts = ", ".join(f"{count:,} {reason}" for reason, count in count_reasons(unused).items())
    lines = [f"{spell(one.name)}: {one.text}" for one in unused if one.reason != HIDDEN]
    heading = f"{len(unused):,} files found in {where} are not used: {counts}"
    return [numbered(f"{heading}.", lines) if lines else f"{heading}."]


def is_utf8(name: str) -> bool:
    """Whether a name is text, and holds no surrogates, which stand for bytes that are not."""
    return name.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in name)


def spell(name: str | os.PathLike[str]) -> str:
    r"""A name as UTF-8 text; other bytes, which tables and terminals cannot hold, are escaped as `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


HIDDEN = "hidden"
HEAT_MAP = "heat map of another file"


class _Walk:
    """The regular files of a tree, each folder once, and what is left out without being opened."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.unused: list[tuple[str, str]] = []
        self.unlisted: list[str] = []
        self._seen: set[tuple[int, int]] = set()

    def visit(self, root: str) -> None:
        """List a folder and those below it; links may lead back to a parent, or to the same place twice."""
        device = self._see_link(root) or 0
        waiting = [(root, device)]
        while waiting:
            folder, device = waiting.pop()
            try:
                with os.scandir(folder) as listed:
                    entries = list(listed)
            except NotADirectoryError:  # a named pipe was given
                continue
            except OSError:
                self.unlisted.append(folder)
                continue
            waiting += self._see_folders(self._take_files(entries), device)

    def _take_files(self, entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
        """Take the files of one folder, and return its folders."""
        heat_maps = find_heat_maps([entry.name for entry in entries])
        folders: list[os.DirEntry[str]] = []
        for entry in entries:
            if entry.name.startswith("."):
                self.unused.append((entry.path, HIDDEN))
            elif _is_folder(entry):
                folders.append(entry)
            else:
                self._take(entry, is_heat_map=entry.name in heat_maps)
        return folders

    def _see_folders(self, folders: list[os.DirEntry[str]], device: int) -> list[tuple[str, int]]:
        """The folders that have not been seen, each with its device; linked ones first, to be visited last."""
        real = [entry for entry in folders if not entry.is_symlink()]
        self._seen.update((device, entry.inode()) for entry in real)
        found = [(entry.path, device) for entry in real]
        if len(real) == len(folders):
            return found
        links = sorted(entry.path for entry in folders if entry.is_symlink())
        linked = [(path, seen) for path in links if (seen := self._see_link(path)) is not None]
        return [*reversed(linked), *found]

    def _see_link(self, folder: str) -> int | None:
        """The device of a folder that has not been seen."""
        try:
            status = os.stat(folder)  # noqa: PTH116  (a Path per folder costs more than the call)
        except OSError:  # listing it reports the error
            return 0
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            return None
        self._seen.add(identity)
        return status.st_dev

    def _take(self, entry: os.DirEntry[str], *, is_heat_map: bool) -> None:
        if not _is_readable(entry):  # reading a named pipe would block
            self.unused.append((entry.path, "not a regular file"))
        elif is_heat_map:
            self.unused.append((entry.path, HEAT_MAP))
        else:
            self.files.append(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_readable(entry: os.DirEntry[str]) -> bool:
    """Whether a file may be opened: a regular one, or one about which nothing is known (a dangling link)."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:
        return True
