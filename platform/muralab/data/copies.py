"""Pictures that appear twice: the same DICOM object, or equal bytes. They count once."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress

from muralab.data.files import digest_bytes, digest_pixels, read_image
from muralab.data.scan import FoundPicture, Unused, spell
from muralab.errors import DataError

COPY = "copy of another picture"
_START_BYTES = 65_536
"""Read of files that have only their size in common."""

Groups = list[list[FoundPicture]]


def drop_copies(
    pictures: Sequence[FoundPicture], within: Sequence[Hashable] | None = None
) -> tuple[list[FoundPicture], list[Unused], list[str]]:
    """Keep the first of the pictures that are the same one.

    Two files are the same picture if their bytes are equal, or if they have one SOPInstanceUID and equal pixels: the
    same object with another header, or in another lossless compression. An export that gives one SOPInstanceUID to
    different pictures loses none of them.

    Args:
        pictures: sorted by name.
        within: only pictures with an equal value, for instance of one study, are compared; None compares all.

    Returns:
        The kept pictures, the others, and notes.
    """
    suspects: dict[Hashable, list[FoundPicture]] = defaultdict(list)
    for picture, own in zip(pictures, within or [None] * len(pictures)):
        suspects[own, _suspicion(picture)].append(picture)
    copies: dict[str, Unused] = {}
    n_shared = 0
    for group in suspects.values():
        if len(group) < 2:
            continue
        same = _same_objects(group) if _instance(group[0]) else _same_bytes(group)
        n_shared += len(same) if _instance(group[0]) and len(same) > 1 else 0
        for original, *others in same:
            copies |= {
                other.name: Unused(name=other.name, reason=COPY, detail=spell(original.name)) for other in others
            }
    kept = [picture for picture in pictures if picture.name not in copies]
    return kept, list(copies.values()), _shared_note(n_shared)


def _instance(picture: FoundPicture) -> str:
    return picture.header.instance if picture.header is not None else ""


def _suspicion(picture: FoundPicture) -> Hashable:
    """Equal for all files that may be the same picture: without an identifier, those of one size."""
    if _instance(picture):
        return _instance(picture)
    with suppress(OSError):
        return os.path.getsize(picture.path)  # noqa: PTH202  (a Path per file costs more than the call)
    return picture.path, "unreadable"


def _same_bytes(pictures: Iterable[FoundPicture]) -> Groups:
    """Files of one size -> groups of equal ones; most differ at their start already."""
    return [
        whole
        for start in _group(pictures, _digest_start)
        for whole in (_group(start, _digest) if start[1:] else [start])
    ]


def _same_objects(pictures: Sequence[FoundPicture]) -> Groups:
    """Files of one SOPInstanceUID -> groups of equal pictures; those that cannot be decoded are taken as one."""
    equal = _group(pictures, _digest)
    if len(equal) == 1:
        return equal
    first = {group[0].name: group for group in equal}
    merged = _group([group[0] for group in equal], _digest_pixels)
    return [[picture for one in group for picture in first[one.name]] for group in merged]


def _group(pictures: Iterable[FoundPicture], key: Callable[[FoundPicture], Hashable]) -> Groups:
    groups: dict[Hashable, list[FoundPicture]] = defaultdict(list)
    for picture in pictures:
        groups[key(picture)].append(picture)
    return list(groups.values())


def _digest_start(picture: FoundPicture) -> str:
    return _digest(picture, _START_BYTES)


def _digest(picture: FoundPicture, n_bytes: int = -1) -> str:
    try:
        with open(picture.path, "rb") as file:  # noqa: PTH123
            return digest_bytes(file.read(n_bytes))
    except OSError:  # it is reported where it is read as a picture
        return picture.path


def _digest_pixels(picture: FoundPicture) -> str:
    with suppress(DataError):
        grey = read_image(picture.path).grey
        if grey is not None:
            return digest_pixels(grey)
    return ""


def _shared_note(n_pictures: int) -> list[str]:
    if not n_pictures:
        return []
    return [
        f"{n_pictures:,} pictures share a SOPInstanceUID with a picture of other pixels, which no two pictures should; "
        "all of them are kept. Ask whoever made the export whether it gave several pictures one identifier."
    ]
