"""A file, a folder, a MURA tree or a DICOM folder -> a list of pictures and the study that each belongs to."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from muralab.errors import DataError, SettingsError, nearest
from muralab.predict.studies import split_studies

GROUPINGS = ("folder", "file")
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom"})
MAX_REQUEST_BYTES = 24 * 2**20
"""Bytes of files in a request, so that base64 and all it stays below a server's body limit."""

_MURA_STUDY = re.compile(r"(?:.*/)?XR_[^/]+/patient\d+/study[^/]+(?=/)")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture."""

    path: Path
    name: str
    """Below the folder that was asked for, with slashes."""
    study: str
    """What the views of one study share."""
    n_bytes: int = 0


def find_pictures(images: Path, *, study: str = "folder") -> list[Item]:
    """List what is to be answered, sorted by study and name.

    Args:
        images: a picture, or a folder with pictures at any depth (PNG, JPEG, DICOM; DICOM also without a suffix).
            Hidden files are passed over, links are followed.
        study: "folder": a study's views lie in one folder (in a MURA tree: its study folder), where DICOM files of
            several studies are told apart by their headers; "file": each picture is a study of its own.

    Raises:
        DataError: the path does not exist, or holds no picture.
        SettingsError: an unknown grouping.
    """
    if study not in GROUPINGS:
        raise SettingsError(f"study={study}: expected folder or file. {nearest(study, GROUPINGS)}")
    if not os.access(images, os.F_OK):
        raise DataError(
            f"images={images} does not exist, or may not be reached. Give a picture, or a folder that holds pictures."
        )
    files = [images] if images.is_file() else sorted(_walk(images))
    if not files:
        raise DataError(
            f"images={images} holds no picture. Looked at every depth for {', '.join(sorted(PICTURE_SUFFIXES))} and "
            "for DICOM files without a suffix."
        )
    base = images.parent if images.is_file() else images
    items = sorted((_build_item(file, base, study) for file in files), key=_order)
    return items if study == "file" else sorted(split_studies(items), key=_order)


def _order(item: Item) -> tuple[str, str]:
    return item.study, item.name


def study_of(name: str) -> str:
    """The study of a picture by its folder, "." for one that lies in no folder.

    Args:
        name: the picture's path below the folder that was asked for.
    """
    mura = _MURA_STUDY.match(name)
    return mura.group(0) if mura else name.rpartition("/")[0] or "."


def spell(path: Path) -> str:
    """A path as text in UTF-8; other bytes, which could stand in no table and on no terminal, as `\\xff`."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def build_batches(items: Sequence[Item], *, rows: int) -> list[list[Item]]:
    """Group pictures into requests; a study is never split, since its answer is made of all its views.

    Args:
        items: sorted by study.
        rows: of a request, wanted; a larger study gets a request of its own.
    """
    batches: list[list[Item]] = []
    for _, views in groupby(items, key=lambda item: item.study):
        views_of_study = list(views)
        if batches and _fits(batches[-1], views_of_study, rows):
            batches[-1].extend(views_of_study)
        else:
            batches.append(views_of_study)
    return batches


def _fits(batch: list[Item], views: list[Item], rows: int) -> bool:
    together = [*batch, *views]
    return len(together) <= rows and sum(item.n_bytes for item in together) <= MAX_REQUEST_BYTES


def _build_item(file: Path, base: Path, study: str) -> Item:
    name = spell(file.relative_to(base))
    n_bytes = 0
    with contextlib.suppress(OSError):  # a dangling link: reading it will say so
        status = file.stat()
        n_bytes = status.st_size
        if stat.S_ISDIR(status.st_mode):
            name += "/"  # one that cannot be listed: a study of its own
    return Item(path=file, name=name, study=name if study == "file" else study_of(name), n_bytes=n_bytes)


def _walk(folder: Path) -> Iterator[Path]:
    """Pictures, each once, and folders that cannot be listed: reading such a one will say why."""
    unlisted: list[Path] = []

    def note(error: OSError) -> None:
        if not isinstance(error, NotADirectoryError):  # a named pipe as the place to look in
            unlisted.append(Path(error.filename))

    seen: set[tuple[int, int]] = set()
    _is_new(folder, seen)
    for parent, folders, names in os.walk(folder, onerror=note, followlinks=True):
        # Folders before links, so that a study that is also linked keeps its own name.
        ordered = sorted(folders, key=lambda name: (os.path.islink(f"{parent}/{name}"), name))  # noqa: PTH114
        folders[:] = [name for name in ordered if not name.startswith(".") and _is_new(Path(parent, name), seen)]
        for name in names:
            if not name.startswith(".") and _is_picture(Path(parent, name)):
                yield Path(parent, name)
    yield from unlisted


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder is met for the first time: a link may lead back, or where another has led."""
    try:
        status = folder.stat()
    except OSError:  # listing it will say so
        return True
    identity = (status.st_dev, status.st_ino)
    new = identity not in seen
    seen.add(identity)
    return new


def _is_picture(file: Path) -> bool:
    with contextlib.suppress(OSError):  # a dangling link, or no right to look: the table tells of it
        if not stat.S_ISREG(file.stat().st_mode):  # a named pipe would be waited for
            return False
    if file.suffix.lower() in PICTURE_SUFFIXES:
        return True
    # DICOM exports number their files: IM000001, or names full of dots.
    if file.name == "DICOMDIR" or (file.suffix and not file.suffix[1:].isdigit()):
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False
