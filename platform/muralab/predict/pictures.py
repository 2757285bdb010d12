"""Find image files in a folder, a MURA tree or a DICOM export, and the study that each belongs to."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from muralab.errors import DataError, SettingsError, nearest
from muralab.predict.item import Item
from muralab.predict.studies import split_studies

GROUPINGS = ("folder", "file")
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom"})
MAX_REQUEST_BYTES = 24 * 2**20
"""Bytes of files in a request: in base64 it stays below the body limit of a server."""

_MURA_STUDY = re.compile(r"(?:.*/)?XR_[^/]+/patient\d+/study[^/]+(?=/)")


def find_pictures(images: Path, *, study: str = "folder") -> list[Item]:
    """List image files, sorted by study and name.

    Args:
        images: an image file, or a folder with images at any depth (PNG, JPEG, DICOM; DICOM also without a suffix).
            Hidden files are skipped and links are followed.
        study: "folder": the views of a study are in one folder (in a MURA tree, the study folder); DICOM files of
            several studies in one folder are separated by their headers. "file": each image is a study of its own.

    Raises:
        DataError: the path does not exist or holds no image.
        SettingsError: an unknown grouping.
    """
    if study not in GROUPINGS:
        raise SettingsError(f"study={study}: expected folder or file. {nearest(study, GROUPINGS)}")
    if not os.access(images, os.F_OK):
        raise DataError(
            f"images={images} does not exist, or is not accessible. Expected an image file or a folder with images."
        )
    files = [images] if images.is_file() else sorted(_walk(images))
    if not files:
        raise DataError(
            f"images={images} holds no image. Searched all subfolders for {', '.join(sorted(PICTURE_SUFFIXES))} and "
            "for DICOM files without a suffix."
        )
    base = images.parent if images.is_file() else images
    items = sorted((_build_item(file, base, study) for file in files), key=_order)
    return items if study == "file" else sorted(split_studies(items), key=_order)


def _order(item: Item) -> tuple[str, str]:
    return item.study, item.name


def study_of(name: str) -> str:
    """Study of an image by its folder; "." for an image directly in the requested folder.

    Args:
        name: path of the image below the requested folder.
    """
    mura = _MURA_STUDY.match(name)
    return mura.group(0) if mura else name.rpartition("/")[0] or "."


def spell(path: Path) -> str:
    """Path as UTF-8 text; other bytes, which tables and terminals cannot hold, are escaped as `\\xff`."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def build_batches(items: Sequence[Item], *, rows: int) -> list[list[Item]]:
    """Group images into requests; a study is never split, because its answer depends on all its views.

    Args:
        items: sorted by study.
        rows: target size of a request; a larger study gets a request of its own.
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
    with contextlib.suppress(OSError):  # a dangling link: reading it reports the error
        status = file.stat()
        n_bytes = status.st_size
        if stat.S_ISDIR(status.st_mode):
            name += "/"  # an unreadable folder: a study of its own
    return Item(path=file, name=name, study=name if study == "file" else study_of(name), n_bytes=n_bytes)


def _walk(folder: Path) -> Iterator[Path]:
    """Image files, each once, and unreadable folders, which report their error when they are read."""
    unlisted: list[Path] = []

    def note(error: OSError) -> None:
        if not isinstance(error, NotADirectoryError):  # the requested path is a named pipe
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
    """Whether a folder has not been visited: links may lead back to a parent, or to the same place twice."""
    try:
        status = folder.stat()
    except OSError:  # listing it reports the error
        return True
    identity = (status.st_dev, status.st_ino)
    new = identity not in seen
    seen.add(identity)
    return new


def _is_picture(file: Path) -> bool:
    with contextlib.suppress(OSError):  # a dangling link or no permission: reported in the table
        if not stat.S_ISREG(file.stat().st_mode):  # reading a named pipe would block
            return False
    if file.suffix.lower() in PICTURE_SUFFIXES:
        return True
    # DICOM exports number their files: IM000001, or UIDs with dots.
    if file.name == "DICOMDIR" or (file.suffix and not file.suffix[1:].isdigit()):
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False
