"""Read a MURA tree from disk into a table of one row per image, and count what it holds besides.

    MURA-v1.1/{train,valid}/XR_WRIST/patient00001/study1_positive/image1.png
    MURA-v1.1/{train,valid}_image_paths.csv          one path per line, starting at "MURA-v1.1/"
    MURA-v1.1/{train,valid}_labeled_studies.csv      study folder, then 0 or 1

The lists are optional: without them, the folders are read; a picture deeper than its study's folder is a view of that
study. What a file is decides its content, see `muralab.data.scan`. The parts are the `XR_*` folders found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from muralab.data.mura_lists import DEPTH, read_image_list, read_label_list
from muralab.data.scan import HEAT_MAP, FoundPicture, Scan, Unused, classify, is_utf8, scan_folder, spell, unused_note
from muralab.errors import DataError, numbered
from muralab.paths import expand

COLUMNS = ("split", "part", "patient", "study", "image", "label", "path")
OFFICIAL_SPLITS = ("train", "valid")
"""MURA's own folders; our sets are in `splits`."""
ALL_PARTS = "all"
SUFFIX_LABELS = {"positive": 1, "negative": 0}


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The images of a tree, and what was found beside them."""

    table: pd.DataFrame
    """One row per image, see `read_tree`."""
    notes: tuple[str, ...] = ()
    """Sentences that count and name files that are not images, or images not in a study's folder or in the list."""


@dataclass(kw_only=True)
class _Found:
    """What one or several official splits hold."""

    images: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_root(path: Path) -> Path:
    """Find the folder that holds `train/` and `valid/`: the given one, or the MURA folder directly inside it.

    Args:
        path: the MURA-v1.1 folder, or the folder into which it was unpacked.

    Raises:
        DataError: the path does not exist, or does not hold a MURA tree.
    """
    path = expand(path).resolve()
    if not path.is_dir():
        state = "is not a folder" if path.exists() else "does not exist"
        raise DataError(
            f"The data path {path} {state}. Give the MURA-v1.1 folder, the folder that contains it, or a manifest (a "
            "CSV or Parquet file)."
        )
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


def require_part(what: str, part: str, parts: Sequence[str]) -> None:
    """Refuse a part that a data set does not have; case matters, since experiments and models are named after it.

    Raises:
        DataError: names those that it has.
    """
    if part not in (ALL_PARTS, *parts):
        raise DataError(f"{what} has no part '{part}'. It has: {', '.join(parts) or 'none'} (or all).")


def is_study(root: Path, name: str, part: str = ALL_PARTS) -> bool:
    """Whether a name is that of a study's folder in a tree, and of one part."""
    folders = name.split("/")
    of_part = len(folders) == DEPTH - 1 and part in (ALL_PARTS, folders[1].removeprefix("XR_").lower())
    return of_part and ".." not in folders and (root / name).is_dir()


def read_index(root: Path, part: str) -> pd.DataFrame:
    """The table of `read_tree` alone."""
    return read_tree(root, part).table


def read_tree(root: Path, part: str) -> Tree:
    """Read the official train and valid folders.

    Args:
        root: the folder from `find_root`.
        part: a body part, or "all".

    Returns:
        A table of `COLUMNS`, sorted by image: label is 0 (normal) or 1 (abnormal), image is the unique POSIX path
        relative to the root, path is the absolute path of the file. And what was found that is not in the table.

    Raises:
        DataError: the tree does not have the part, a list names missing files or contradicts itself, a name is not
            UTF-8, a folder cannot be listed, or there are no images.
    """
    root = Path(root).absolute()
    if not is_utf8(str(root)):  # a table cannot store its files' paths
        raise DataError(f"The tree {str(root)!a} is in a folder whose name is not UTF-8; rename or move it.")
    parts = parts_of(root)
    require_part(f"The tree {root}", part, parts)
    wanted = set(parts) if part == ALL_PARTS else {part}
    found = _Found()
    for split in OFFICIAL_SPLITS:
        _find_images(root, split, wanted, found)
        found.labels |= read_label_list(root, split, wanted)
    found.notes += unused_note(found.unused, str(root))
    if not found.images:
        raise DataError(
            f"There are no images of part '{part}' in {root}. Expected files such as "
            f"{root}/train/XR_{part.upper()}/patient00001/study1_positive/image1.png."
            + "".join(f"\n{note}" for note in found.notes)
        )
    table = _build_table(root, sorted(set(found.images)), found.labels)
    return Tree(table=table, notes=tuple(found.notes))


def _build_table(root: Path, images: list[str], labels: dict[str, int]) -> pd.DataFrame:
    """The table, from the components of each path; every study has exactly one label."""
    components = [image.split("/") for image in images]
    studies = ["/".join(names[: DEPTH - 1]) for names in components]
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


def _find_images(root: Path, split: str, parts: set[str], found: _Found) -> None:
    """Add the images of one official split, from its list or else from its folders."""
    file = root / f"{split}_image_paths.csv"
    listed = read_image_list(file, split, parts) if file.is_file() else None
    named = frozenset(listed or ())
    scans = [
        scan_folder(folder, prefix=f"{split}/{folder.name}/", listed=named, headers=False)
        for folder in _part_folders(root)
        if folder.parent.name == split and folder.name[3:].lower() in parts
    ]
    _refuse_unlisted(scans)
    pictures = [picture for scan in scans for picture in scan.pictures]
    found.unused += [one for scan in scans for one in scan.unused]
    found.unused += _outside_parts(root, split)
    if listed is None:
        found.images += _in_study_folders(pictures, root, found)
    else:
        found.images += _listed_images(listed, pictures, root, file, found)


def _listed_images(
    listed: Sequence[str], pictures: Sequence[FoundPicture], root: Path, file: Path, found: _Found
) -> list[str]:
    """The images of a list; those of its folders that it does not name are counted.

    Raises:
        DataError: the list names missing files.
    """
    present, names = {picture.name for picture in pictures}, set(listed)
    heat_maps = {one.name for one in found.unused if one.reason == HEAT_MAP}
    absent = [name for name in listed if name not in present and name not in heat_maps]
    missing = [name for name in absent if not (root / name).is_file()]
    if missing:
        heading = f"{file} names {len(missing)} files that are missing below {root}:"
        raise DataError(numbered(heading, missing) + "\nUnpack the archive again, or remove these lines from the list.")
    unnamed = sorted(present - names)
    if unnamed:
        heading = (
            f"{file} does not name {len(unnamed):,} pictures that are in its folders; they are not used (add them to "
            "the list, or remove the list to read the folders):"
        )
        found.notes.append(numbered(heading, [spell(name) for name in unnamed]))
    return [name for name in listed if name not in heat_maps]


def _in_study_folders(pictures: Sequence[FoundPicture], root: Path, found: _Found) -> list[str]:
    """The pictures that lie in the folder of a study or deeper; the others are counted.

    Raises:
        DataError: a name is not UTF-8.
    """
    odd = [ascii(picture.name) for picture in pictures if not is_utf8(picture.name)]
    if odd:
        raise DataError(numbered(f"{len(odd)} files in {root} have names that are not UTF-8; rename them:", odd))
    depths = {picture.name: picture.name.count("/") + 1 for picture in pictures}
    found.unused += [
        Unused(name=name, reason="picture outside of a study's folder")
        for name, depth in depths.items()
        if depth < DEPTH
    ]
    deeper = [name for name, depth in depths.items() if depth > DEPTH]
    if deeper:
        heading = f"{len(deeper):,} pictures lie in folders below their study's, and count as its views:"
        found.notes.append(numbered(heading, deeper))
    return [name for name, depth in depths.items() if depth >= DEPTH]


def _outside_parts(root: Path, split: str) -> list[Unused]:
    """Pictures of an official split that are not below a folder of a part, which is named XR_*."""
    folder = root / split
    inside = {part.name for part in _part_folders(root) if part.parent == folder}
    others = [] if not folder.is_dir() else [entry for entry in folder.iterdir() if entry.name not in inside]
    pictures: list[str] = []
    for entry in sorted(others):
        name = f"{split}/{entry.name}"
        if entry.is_dir() and not entry.name.startswith("."):
            pictures += [picture.name for picture in scan_folder(entry, prefix=f"{name}/", headers=False).pictures]
        elif entry.is_file() and isinstance(classify(str(entry), name, headers=False), FoundPicture):
            pictures.append(name)
    return [Unused(name=name, reason="picture outside of a part's folder (XR_*)") for name in pictures]


def _refuse_unlisted(scans: Sequence[Scan]) -> None:
    unlisted = [spell(path) for scan in scans for path in scan.unlisted]
    if unlisted:
        raise DataError(numbered(f"{len(unlisted)} folders cannot be listed; give access to them:", unlisted))


def _part_folders(root: Path) -> list[Path]:
    return sorted(folder for split in OFFICIAL_SPLITS for folder in (root / split).glob("XR_*/"))


def _listing(path: Path, shown: int = 10) -> str:
    names = sorted(child.name for child in path.iterdir())
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "nothing"
