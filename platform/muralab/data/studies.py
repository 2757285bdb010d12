"""Which study a picture belongs to: by its DICOM header wherever the file lies, or else by its folder."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from muralab.data.headers import Header
from muralab.errors import DataError, SettingsError, nearest

GROUPINGS = ("auto", "folder", "file")
"""auto: by header, and by folder where there is none. folder: the views of a study lie in one folder, which is split
where it holds DICOM files of several studies. file: each picture is a study of its own."""

TOP = "."
"""The study of pictures directly in the folder that was named."""

_MURA_STUDY = re.compile(r"(?:.*/)?XR_[^/]+/patient\d+/study[^/]+(?=/)")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyKey:
    """The identity of a study, equal for all its views."""

    uid: str = ""
    """StudyInstanceUID; without one, the next three say which study it is."""
    patient: str = ""
    issuer: str = ""
    date: str = ""
    accession: str = ""


def check_grouping(study: str) -> None:
    """Check a grouping.

    Raises:
        SettingsError: it is unknown.
    """
    if study not in GROUPINGS:
        raise SettingsError(f"study={study}: expected {' or '.join(GROUPINGS)}. {nearest(study, GROUPINGS)}")


def study_keys(headers: Sequence[Header | None]) -> list[StudyKey | None]:
    """The study that each header names; None where it names none.

    A study is one StudyInstanceUID of one patient: careless anonymisation gives one UID to several. Where it is empty,
    a study is one patient, date and accession number; a date alone names no study. A view without a patient gets the
    patient of its study, if the other views agree on one.
    """
    keys = [None if header is None else _key(header) for header in headers]
    patients: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for key in keys:
        if key is not None and key.uid and key.patient:
            patients[key.uid].add((key.patient, key.issuer))
    return [key if key is None or key.patient else _complete(key, patients.get(key.uid, set())) for key in keys]


def _key(header: Header) -> StudyKey | None:
    if header.study:
        return StudyKey(uid=header.study, patient=header.patient, issuer=header.issuer if header.patient else "")
    if not (header.patient or header.accession):
        return None
    return StudyKey(patient=header.patient, issuer=header.issuer, date=header.date, accession=header.accession)


def _complete(key: StudyKey, patients: set[tuple[str, str]]) -> StudyKey:
    if not key.uid or len(patients) != 1:
        return key
    ((patient, issuer),) = patients
    return replace(key, patient=patient, issuer=issuer)


def folder_study(name: str) -> str:
    """The study of a picture by its folder: in a MURA tree the study's, however deep the picture lies below it.

    Args:
        name: path below the folder that was named, with slashes.

    Returns:
        The folder, or `TOP` for a picture directly in the folder that was named.

    >>> folder_study("XR_HAND/patient00001/study2_negative/raw/a.png")
    'XR_HAND/patient00001/study2_negative'
    """
    mura = _MURA_STUDY.match(name)
    return mura.group(0) if mura else name.rpartition("/")[0] or TOP


def is_mura_study(folder: str) -> bool:
    """Whether a folder is, or lies in, the folder of one study of a MURA tree."""
    return _MURA_STUDY.match(f"{folder}/") is not None


def name_studies(
    names: Sequence[str],
    headers: Sequence[Header | None],
    *,
    study: str = "auto",
    where: str = "the folder",
    flat_is_study: bool = False,
) -> list[str]:
    """The study of each picture, by a name that shows no patient: a folder, a StudyInstanceUID, or a number.

    Args:
        names: of the pictures below the folder that was named, with slashes, each once.
        headers: of the same pictures.
        study: one of `GROUPINGS`.
        where: the folder that was named, for the error message.
        flat_is_study: whether that folder is known to be the folder of one study.

    Returns:
        Names, equal for the pictures of one study.

    Raises:
        DataError: `auto`, and several pictures lie directly in the folder, without a header that names a study.
        SettingsError: an unknown grouping.
    """
    check_grouping(study)
    if study == "file":
        return list(names)
    keys = study_keys(headers)
    folders = [folder_study(name) for name in names]
    if study == "auto":
        if not flat_is_study:
            _refuse_flat([name for name, key in zip(names, keys) if key is None], where)
        groups: list[tuple[object, ...]] = [(folder,) if key is None else (key,) for folder, key in zip(folders, keys)]
    else:
        groups = _within_folders(folders, keys)
    return _name_groups(groups, names, keys, folders)


def _within_folders(folders: Sequence[str], keys: Sequence[StudyKey | None]) -> list[tuple[object, ...]]:
    """Folder by folder: one study, or several where headers name several."""
    named: dict[str, set[StudyKey]] = defaultdict(set)
    for folder, key in zip(folders, keys):
        if key is not None:
            named[folder].add(key)
    return [
        (folder,) if key is None or len(named[folder]) == 1 else (folder, key) for folder, key in zip(folders, keys)
    ]


def _refuse_flat(names: Sequence[str], where: str) -> None:
    """Refuse several pictures of one folder that nothing says to be, or not to be, one study."""
    flat = [name for name in names if folder_study(name) == TOP]
    if len(flat) < 2:
        return
    raise DataError(
        f"{len(flat):,} pictures lie directly in {where}, such as {flat[0]}, and no header says which of them are "
        "views of one study. Say what is meant: study=file if each picture is a study of its own, study=folder if they "
        "are all views of one study; or put the views of each study into a folder."
    )


def _name_groups(
    groups: Sequence[tuple[object, ...]],
    names: Sequence[str],
    keys: Sequence[StudyKey | None],
    folders: Sequence[str],
) -> list[str]:
    """A name for each group: the folder that it alone fills, or else its UID, or else a number."""
    members: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    fills = _exclusive_folders(groups, names)
    found: dict[tuple[object, ...], str] = {}
    for group, positions in members.items():
        common = _common_folder([folders[position] for position in positions])
        if isinstance(group[-1], str):
            found[group] = group[-1]
        elif fills.get(common) == {group}:
            found[group] = common
        else:
            found[group] = _spelled_key(keys[positions[0]], common if len(group) == 2 else "")
    return _number(groups, found)


def _spelled_key(key: StudyKey | None, folder: str) -> str:
    uid = (key.uid if key is not None else "") or "study without UID"
    return uid if folder in ("", TOP) else f"{folder}/{uid}"


def _number(groups: Sequence[tuple[object, ...]], found: dict[tuple[object, ...], str]) -> list[str]:
    """Names per picture; groups of one name are numbered, as two patients with one UID are."""
    counts = Counter(found.values())
    numbers: Counter[str] = Counter()
    final: dict[tuple[object, ...], str] = {}
    for group in dict.fromkeys(groups):
        name = found[group]
        numbers[name] += 1
        final[group] = name if counts[name] == 1 else f"{name} ({numbers[name]})"
    return [final[group] for group in groups]


def _exclusive_folders(
    groups: Sequence[tuple[object, ...]], names: Sequence[str]
) -> dict[str, set[tuple[object, ...]]]:
    """Folder -> the groups that have pictures in it or below it."""
    inside: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for group, name in zip(groups, names):
        parts = name.split("/")[:-1]
        inside[TOP].add(group)
        for depth in range(1, len(parts) + 1):
            inside["/".join(parts[:depth])].add(group)
    return inside


def _common_folder(folders: Sequence[str]) -> str:
    """The deepest folder that holds all of some folders."""
    split = [() if folder == TOP else tuple(folder.split("/")) for folder in folders]
    common: list[str] = []
    for level in zip(*split):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "/".join(common) or TOP


def patient_folder(name: str) -> str:
    """The patient of a picture by its path in a MURA tree; empty elsewhere.

    >>> patient_folder("train/XR_HAND/patient00001/study2_negative/a.png")
    'patient00001'
    """
    study = _MURA_STUDY.match(name)
    return study.group(0).split("/")[-2] if study else ""


def part_folder(name: str) -> str:
    """The body part of a picture by its path in a MURA tree, in lower case; empty elsewhere.

    >>> part_folder("train/XR_HAND/patient00001/study2_negative/a.png")
    'hand'
    """
    study = _MURA_STUDY.match(name)
    return study.group(0).split("/")[-3].removeprefix("XR_").lower() if study else ""
