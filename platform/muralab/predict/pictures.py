"""Find image files in a folder, a MURA tree or a DICOM export, and the study that each belongs to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from muralab.data.copies import drop_copies
from muralab.data.images.kind import PICTURE_KINDS
from muralab.data.scan import FoundPicture, Progress, Unused, scan_folder, spell
from muralab.data.studies import check_grouping, is_mura_study, name_studies
from muralab.errors import DataError
from muralab.predict.item import Item

MAX_REQUEST_BYTES = 24 * 2**20
"""Bytes of files in a request: in base64 it stays below the body limit of a server."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is answered, and what was found beside it."""

    items: list[Item]
    """Sorted by study and name."""
    unused: list[Unused] = field(default_factory=list)
    """Sorted by name."""
    notes: list[str] = field(default_factory=list)


def find_pictures(images: Path, *, study: str = "auto", progress: Progress | None = None) -> Pictures:
    """List image files and their studies.

    Args:
        images: an image file, which is taken as it is, or a folder with images at any depth; the content of a file
            decides whether it is one. Hidden files are not opened and links are followed.
        study: see `GROUPINGS`.
        progress: called with (files opened, files in total).

    Raises:
        DataError: the path does not exist, holds no image, or does not show which images are one study.
        SettingsError: an unknown grouping.
    """
    check_grouping(study)
    if not os.access(images, os.F_OK):
        raise DataError(
            f"images={images} does not exist, or is not accessible. Expected an image file or a folder with images."
        )
    if images.is_file():
        single = FoundPicture(path=str(images), name=images.name)
        return Pictures(items=_build_items([single], ["."] if study != "file" else [spell(images.name)]))
    scan = scan_folder(images, progress=progress)
    folders = [FoundPicture(path=path, name=f"{os.path.relpath(path, images)}/") for path in scan.unlisted]
    if not scan.pictures and not folders:
        raise DataError(_no_image(images, scan.unused))
    found = [*scan.pictures, *folders]
    names = name_studies(
        [spell(one.name) for one in found],
        [one.header for one in found],
        study=study,
        where=f"images={images}",
        flat_is_study=is_mura_study(images.resolve().as_posix()),
    )
    study_of = {one.name: name for one, name in zip(found, names)}
    # The same object in two folders is one view of its study; files without an identifier all get their own row.
    objects = [one for one in found if one.header is not None and one.header.instance]
    _, copies, notes = drop_copies(objects, [study_of[one.name] for one in objects])
    dropped = {one.name for one in copies}
    kept = [one for one in found if one.name not in dropped]
    unused = sorted([*scan.unused, *copies], key=lambda one: one.name)
    return Pictures(items=_build_items(kept, [study_of[one.name] for one in kept]), unused=unused, notes=notes)


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


def _build_items(found: Sequence[FoundPicture], studies: Sequence[str]) -> list[Item]:
    items = [
        Item(path=Path(one.path), name=spell(one.name), study=study, n_bytes=_size(one.path))
        for one, study in zip(found, studies)
    ]
    return sorted(items, key=lambda item: (item.study, item.name))


def _size(path: str) -> int:
    with contextlib.suppress(OSError):  # a dangling link: reading it reports the error
        return Path(path).stat().st_size
    return 0


def _no_image(images: Path, unused: Sequence[Unused]) -> str:
    text = f"images={images} holds no image. Searched all subfolders for {', '.join(PICTURE_KINDS)} files, by content"
    first = "; ".join(f"{spell(one.name)}: {one.reason}" for one in unused[:5])
    return f"{text}; found {len(unused):,} other files ({first})." if unused else f"{text}."
