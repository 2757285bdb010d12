"""Read a MURA tree from disk into a table of one row per image.

    MURA-v1.1/{train,valid}/XR_WRIST/patient00001/study1_positive/image1.png
    MURA-v1.1/{train,valid}_image_paths.csv          one path per line, starting at "MURA-v1.1/"
    MURA-v1.1/{train,valid}_labeled_studies.csv      study folder, then 0 or 1

The lists are optional: without them, the folders are read. The parts are the `XR_*` folders found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from muralab.errors import DataError, numbered

COLUMNS = ("split", "part", "patient", "study", "image", "label", "path")
OFFICIAL_SPLITS = ("train", "valid")
"""MURA's own folders; our sets are in `splits`."""
ALL_PARTS = "all"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm"})
SUFFIX_LABELS = {"positive": 1, "negative": 0}


def find_root(path: Path) -> Path:
    """Find the folder that holds `train/` and `valid/`: the given one, or the MURA folder directly inside it.

    Args:
        path: the MURA-v1.1 folder, or the folder into which it was unpacked.

    Raises:
        DataError: the path does not exist, or does not hold a MURA tree.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_dir():
        state = "is not a folder" if path.exists() else "does not exist"
        raise DataError(f"The data path {path} {state}. Give the MURA-v1.1 folder or the folder that contains it.")
    candidates = [path, path / "MURA-v1.1", *sorted(path.glob("MURA*/"))]
    for candidate in candidates:
        if _part_folders(candidate):
            return candidate
    raise DataError(
        f"No MURA tree in {path}. Looked for train/XR_*/ and valid/XR_*/ in it, in its folder MURA-v1.1, and in every "
        f"folder named MURA*; expected files such as {path}/MURA-v1.1/train/XR_WRIST/patient00001/study1_positive/"
        f"image1.png. The folder holds: {_listing(path)}."
    )


def parts_of(root: Path) -> list[str]:
    """The body parts of a tree in lower case, sorted, for instance `["hand", "wrist"]`."""
    return sorted({folder.name[3:].lower() for folder in _part_folders(root)})


def read_index(root: Path, part: str) -> pd.DataFrame:
    """Read the rows of the official train and valid folders, sorted by image.

    Args:
        root: the folder from `find_root`.
        part: a body part, or "all".

    Returns:
        A table of `COLUMNS`: label is 0 (normal) or 1 (abnormal), image is the unique POSIX path relative to the root,
        path is the absolute path of the file.

    Raises:
        DataError: the tree does not have the part, a list names missing files or contradicts itself, a name is not
            UTF-8, or there are no images.
    """
    root = Path(root).absolute()
    if not _is_utf8(str(root)):  # a table cannot store its files' paths
        raise DataError(f"The tree {str(root)!a} is in a folder whose name is not UTF-8; rename or move it.")
    parts = parts_of(root)
    if part != ALL_PARTS and part not in parts:  # case matters: experiments and models are named after the part
        raise DataError(f"The tree {root} has no part '{part}'. It has: {', '.join(parts) or 'none'} (or all).")
    wanted = set(parts) if part == ALL_PARTS else {part}
    images: list[str] = []
    labels: dict[str, int] = {}
    for split in OFFICIAL_SPLITS:
        images += _listed_images(root, split, wanted)
        labels |= _listed_labels(root, split, wanted)
    if not images:
        raise DataError(
            f"There are no images of part '{part}' in {root}. Expected files such as "
            f"{root}/train/XR_{part.upper()}/patient00001/study1_positive/image1.png."
        )
    return _build_table(root, sorted(set(images)), labels)


def _build_table(root: Path, images: list[str], labels: dict[str, int]) -> pd.DataFrame:
    """The table, from the components of each path; every study has exactly one label."""
    components = [image.split("/") for image in images]
    studies = [image.rpartition("/")[0] for image in images]
    label_of = _study_labels(root, sorted(set(studies)), labels)
    return pd.DataFrame(
        {
            "split": [names[0] for names in components],
            "part": [names[1][3:].lower() for names in components],
            "patient": [names[2] for names in components],
            "study": studies,
            "image": images,
            "label": [label_of[study] for study in studies],
            "path": [f"{root}/{image}" for image in images],
        },
        columns=list(COLUMNS),
    )


def _study_labels(root: Path, studies: list[str], listed: dict[str, int]) -> dict[str, int]:
    """Study -> label from the list, or else from the folder's suffix; the two must not contradict each other."""
    labels: dict[str, int] = {}
    unlabelled, conflicting = [], []
    for study in studies:
        suffix = SUFFIX_LABELS.get(study.rpartition("_")[2])
        label = listed.get(study, suffix)
        if label is None:
            unlabelled.append(study)
        elif suffix is not None and suffix != label:
            conflicting.append(f"{study}: {label} in the list, {suffix} by the folder's name")
        else:
            labels[study] = label
    if conflicting:
        raise DataError(numbered(f"{len(conflicting)} studies in {root} have conflicting labels:", conflicting))
    if unlabelled:
        heading = f"{len(unlabelled)} studies in {root} have no label, in a list or as suffix _positive or _negative:"
        raise DataError(numbered(heading, unlabelled))
    return labels


def _listed_images(root: Path, split: str, parts: set[str]) -> list[str]:
    """The images of one official split, from its list or else from its folders."""
    file = root / f"{split}_image_paths.csv"
    if not file.is_file():
        found = list(_walk_images(root, split, parts))
        odd = [ascii(image) for image in found if not _is_utf8(image)]
        if odd:
            raise DataError(numbered(f"{len(odd)} files in {root} have names that are not UTF-8; rename them:", odd))
        return found
    images = [
        image
        for number, line in _lines(file)
        if _in_parts(image := _relative(line, split, 5, file, number), parts) and not _hidden(image)
    ]
    missing = [image for image in images if not (root / image).is_file()]
    if missing:
        heading = f"{file} names {len(missing)} files that are missing below {root}:"
        raise DataError(numbered(heading, missing) + "\nUnpack the archive again, or remove these lines from the list.")
    return images


def _listed_labels(root: Path, split: str, parts: set[str]) -> dict[str, int]:
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
        study = _relative(name.rstrip("/"), split, 4, file, number)
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


def _relative(name: str, split: str, depth: int, file: Path, number: int) -> str:
    """A list's path relative to the root, without what precedes the split's folder ("MURA-v1.1/")."""
    names = PurePosixPath(name.strip().strip('"')).parts
    # The last match: a folder above the data may also be called train.
    start = len(names) - 1 - names[::-1].index(split) if split in names else len(names)
    kept = names[start:]
    if len(kept) != depth or not kept[1].startswith("XR_") or ".." in kept:
        example = "/".join(
            ("MURA-v1.1", split, "XR_WRIST", "patient00001", "study1_positive", "image1.png")[: depth + 1]
        )
        raise DataError(f"{file}, line {number}: expected a path such as {example}, found '{name}'.")
    return "/".join(kept)


def _walk_images(root: Path, split: str, parts: set[str]) -> Iterator[str]:
    """The images in the folders of one official split, without hidden files such as `._image1.png`."""
    for folder in _part_folders(root):
        if folder.parent.name != split or folder.name[3:].lower() not in parts:
            continue
        for file in folder.glob("*/*/*"):
            image = file.relative_to(root).as_posix()
            if file.suffix.lower() in IMAGE_SUFFIXES and not _hidden(image):
                yield image


def _part_folders(root: Path) -> list[Path]:
    return sorted(folder for split in OFFICIAL_SPLITS for folder in (root / split).glob("XR_*/"))


def _in_parts(image: str, parts: set[str]) -> bool:
    return image.split("/", 2)[1][3:].lower() in parts


def _is_utf8(name: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in name)  # surrogates, which represent undecodable bytes


def _hidden(image: str) -> bool:
    return "/." in image


def _listing(path: Path, shown: int = 10) -> str:
    names = sorted(child.name for child in path.iterdir())
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "nothing"
