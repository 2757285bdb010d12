"""Which DICOM files of one folder belong to which study: exports often lay those of several patients side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muralab.predict.pictures import Item

_WANTED = ("StudyInstanceUID", "PatientID")
_DEFLATED = "1.2.840.10008.1.2.1.99"

Key = tuple[str, str]
"""A file's study UID and patient. The patient is compared, but stands in no table."""


def split_studies(items: Sequence[Item]) -> list[Item]:
    """Part the DICOM files of a folder by the study and patient that they name.

    Args:
        items: sorted by study, which is the folder.

    Returns:
        The same pictures. Where a folder holds DICOM files of several studies, the study of each is
        "<folder>/<StudyInstanceUID>", or the UID alone at the top; all else stays with its folder.
    """
    parted: list[Item] = []
    for _, views in groupby(items, key=lambda item: item.study):
        parted += _split_folder(list(views))
    return parted


def _split_folder(items: list[Item]) -> list[Item]:
    keys = _complete([read_study(item.path) for item in items])
    known = sorted({key for key in keys if key is not None})
    if len(known) < 2:
        return items
    names = _name(known)
    base = "" if items[0].study == "." else f"{items[0].study}/"
    return [item if key is None else replace(item, study=base + names[key]) for item, key in zip(items, keys)]


def _complete(keys: Sequence[Key | None]) -> list[Key | None]:
    """A view without a patient is of the only one that its study names, if it names one."""
    named: dict[str, set[str]] = {}
    for uid, patient in (key for key in keys if key is not None and key[1]):
        named.setdefault(uid, set()).add(patient)
    only = {uid: next(iter(patients)) for uid, patients in named.items() if len(patients) == 1}
    return [key if key is None or key[1] else (key[0], only.get(key[0], "")) for key in keys]


def _name(keys: Sequence[Key]) -> dict[Key, str]:
    """A study's UID; where several patients share one, as after careless anonymising, numbered."""
    names: dict[Key, str] = {}
    for uid, same in groupby(keys, key=lambda key: key[0]):
        shared = list(same)
        names |= {key: uid if len(shared) == 1 else f"{uid} ({n})" for n, key in enumerate(shared, start=1)}
    return names


def read_study(path: Path) -> Key | None:
    """Study UID and patient of a DICOM file; None where it names no study, or is no DICOM file."""
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return None
            import pydicom
            from pydicom import config

            # pydicom's warnings of odd values would print pieces of a patient's file.
            config.settings.reading_validation_mode = config.IGNORE
            # Deflated files would be inflated whole, however large, and are refused later anyway.
            if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
                return None
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_WANTED))
            uid, patient = (str(header.get(name) or "").strip() for name in _WANTED)
    except Exception:  # a damaged file may raise anything; that it cannot be read is said when it is answered
        return None
    return (uid, patient) if uid else None
