"""The lists that come with MURA: the images of an official split, and the labels of its studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muralab.errors import DataError, numbered

DEPTH = 5
"""Names in the path of an image: official split, part, patient, study, file."""


def read_image_list(file: Path, split: str, parts: set[str]) -> list[str]:
    """The images that a list names, without hidden files."""
    images = [_relative(line, split, DEPTH, file, number, deeper=True) for number, line in _lines(file)]
    return [image for image in images if _in_parts(image, parts) and not _is_hidden(image)]


def read_label_list(root: Path, split: str, parts: set[str]) -> dict[str, int]:
    """Study -> label from one official split's list; empty without a list.

    Raises:
        DataError: a line is not a study and a label, or a study has two labels.
    """
    file = root / f"{split}_labeled_studies.csv"
    if not file.is_file():
        return {}
    labels: dict[str, int] = {}
    conflicting = []
    for number, line in _lines(file):
        name, _, value = line.rpartition(",")
        study = _relative(name.rstrip("/"), split, DEPTH - 1, file, number)
        if value.strip() not in {"0", "1"}:
            raise DataError(f"{file}, line {number}: expected a study's folder, a comma and 0 or 1, found '{line}'.")
        label = int(value)
        if labels.setdefault(study, label) != label:
            conflicting.append(study)
    if conflicting:
        raise DataError(numbered(f"{file} gives {len(conflicting)} studies two conflicting labels:", conflicting))
    return {study: label for study, label in labels.items() if _in_parts(study, parts)}


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Number and text of a list's non-empty lines."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if stripped := line.strip().strip('"'):
            yield number, stripped.replace("\\", "/")


def _relative(name: str, split: str, depth: int, file: Path, number: int, *, deeper: bool = False) -> str:
    """A list's path relative to the root, without what precedes the split's folder ("MURA-v1.1/")."""
    # Split here, since a Path for each of 40,000 lines takes half a second.
    names = [part for part in name.strip().strip('"').split("/") if part not in ("", ".")]
    # The last match: a folder above the data may also be called train.
    start = len(names) - 1 - names[::-1].index(split) if split in names else len(names)
    kept = names[start:]
    is_deep = len(kept) >= depth if deeper else len(kept) == depth
    if not is_deep or not kept[1].startswith("XR_") or ".." in kept:
        example = "/".join(
            ("MURA-v1.1", split, "XR_WRIST", "patient00001", "study1_positive", "image1.png")[: depth + 1]
        )
        raise DataError(f"{file}, line {number}: expected a path such as {example}, found '{name}'.")
    return "/".join(kept)


def _in_parts(image: str, parts: set[str]) -> bool:
    return image.split("/", 2)[1][3:].lower() in parts


def _is_hidden(image: str) -> bool:
    return "/." in image
