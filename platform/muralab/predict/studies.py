"""Separate the DICOM files of one folder by study: exports often mix the files of several patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from muralab.predict.item import Item

_TAGS = ("StudyInstanceUID", "PatientID")
_DEFLATED = "1.2.840.10008.1.2.1.99"

Key = tuple[str, str]
"""Study UID and patient of a file. The patient is compared but never written to a table."""


def split_studies(items: Sequence[Item]) -> list[Item]:
    """Separate the DICOM files of each folder by study and patient.

    Args:
        items: sorted by study, which is the folder.

    Returns:
        The same images. In a folder with DICOM files of several studies, their study is "<folder>/<StudyInstanceUID>",
        or the UID alone at the top level; all other files stay with their folder.
    """
    separated: list[Item] = []
    for _, views in groupby(items, key=lambda item: item.study):
        separated += _split_folder(list(views))
    return separated


def _split_folder(items: list[Item]) -> list[Item]:
    keys = _complete([read_study(item.path) for item in items])
    known = sorted({key for key in keys if key is not None})
    if len(known) < 2:
        return items
    names = _name(known)
    base = "" if items[0].study == "." else f"{items[0].study}/"
    return [item if key is None else replace(item, study=base + names[key]) for item, key in zip(items, keys)]


def _complete(keys: Sequence[Key | None]) -> list[Key | None]:
    """Give a view without a patient the patient of its study, if the other views agree on one."""
    named: dict[str, set[str]] = {}
    for uid, patient in (key for key in keys if key is not None and key[1]):
        named.setdefault(uid, set()).add(patient)
    only = {uid: next(iter(patients)) for uid, patients in named.items() if len(patients) == 1}
    return [key if key is None or key[1] else (key[0], only.get(key[0], "")) for key in keys]


def _name(keys: Sequence[Key]) -> dict[Key, str]:
    """Name studies by their UID, numbered where several patients share one, as after careless anonymisation."""
    names: dict[Key, str] = {}
    for uid, same in groupby(keys, key=lambda key: key[0]):
        shared = list(same)
        names |= {key: uid if len(shared) == 1 else f"{uid} ({n})" for n, key in enumerate(shared, start=1)}
    return names


def read_study(path: Path) -> Key | None:
    """Study UID and patient of a DICOM file; None if it names no study or is not a DICOM file."""
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return None
            import pydicom
            from pydicom import config

            # pydicom's warnings about invalid values would print parts of a patient's file.
            config.settings.reading_validation_mode = config.IGNORE
            # A deflated file would be inflated whole, however large, and is refused later anyway.
            if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
                return None
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
            uid, patient = (str(header.get(name) or "").strip() for name in _TAGS)
    except Exception:  # a damaged file may raise anything; the model reports that it is unreadable
        return None
    return (uid, patient) if uid else None
