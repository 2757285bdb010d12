"""Build a manifest from the pictures of a folder: who and what from DICOM headers, labels from a table of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from muralab.data.copies import drop_copies
from muralab.data.headers import Header
from muralab.data.labels import LabelTable
from muralab.data.manifest import MANIFEST_COLUMNS, UNKNOWN_PART
from muralab.data.scan import FoundPicture, Scan, Unused, is_utf8
from muralab.data.studies import StudyKey, name_studies, part_folder, patient_folder, study_keys
from muralab.errors import DataError, numbered

FACTS = ("view", "laterality", "device", "site", "age", "sex", "burned_in")
"""Columns of a manifest that are read from headers; those that nothing fills are left out."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A manifest before it is written."""

    table: pd.DataFrame
    """One row per picture: image, label, patient, study, part and FACTS. Label is 0, 1, or missing where no table of
    labels was given."""
    unused: list[Unused] = field(default_factory=list)
    """Sorted by name."""
    notes: list[str] = field(default_factory=list)


def build_manifest(
    scan: Scan,
    *,
    folder: Path,
    base: Path,
    study: str = "auto",
    part: str | None = None,
    labels: LabelTable | None = None,
) -> Draft:
    """Describe every picture that a folder holds.

    Args:
        scan: of the folder.
        folder: for error messages, and to build paths.
        base: the manifest's folder, absolute, which image paths are relative to.
        study: see `GROUPINGS`.
        part: of pictures whose header names none; None: `UNKNOWN_PART`.
        labels: pictures without a label in this table are left out.

    Raises:
        DataError: no picture can be used, or it is not clear which pictures are one study.
    """
    pictures, unused = _with_plain_names(scan.pictures)
    pictures, copies, notes = drop_copies(pictures)
    unused += [
        *scan.unused,
        *copies,
        *(Unused(name=path, reason="folder that cannot be listed") for path in scan.unlisted),
    ]
    if not pictures:
        raise DataError(f"{folder} holds no picture; it holds {len(unused):,} other files.")
    table = _describe(pictures, folder=folder, base=base, study=study, part=part)
    notes += _header_notes(pictures, table)
    if labels is not None:
        has_label = _add_labels(table, labels, pictures, notes)
        reason = f"no label in {labels.path.name}"
        unused += [Unused(name=picture.name, reason=reason) for picture, known in zip(pictures, has_label) if not known]
        table = table[has_label].reset_index(drop=True)
    filled = [name for name in FACTS if (table[name] != "").any()]
    table = table[[name for name in MANIFEST_COLUMNS if name in table] + filled]
    return Draft(table=table, unused=sorted(unused, key=lambda one: one.name), notes=notes)


def _with_plain_names(pictures: Sequence[FoundPicture]) -> tuple[list[FoundPicture], list[Unused]]:
    """Without pictures whose name no table can hold."""
    odd = {picture.name for picture in pictures if not is_utf8(picture.name)}
    unused = [Unused(name=name, reason="name that is not UTF-8; rename it") for name in sorted(odd)]
    return [picture for picture in pictures if picture.name not in odd], unused


def _describe(
    pictures: Sequence[FoundPicture], *, folder: Path, base: Path, study: str, part: str | None
) -> pd.DataFrame:
    headers = [picture.header for picture in pictures]
    names = [picture.name for picture in pictures]
    keys = study_keys(headers) if study != "file" else [None] * len(pictures)
    by_folder = name_studies(names, headers, study=study, where=str(folder))
    studies = [own if key is None else _study_id(key) for own, key in zip(by_folder, keys)]
    rows = [
        _row(picture.header or Header(), key, own, picture.name, part)
        for picture, key, own in zip(pictures, keys, studies)
    ]
    table = pd.DataFrame(rows, dtype=str)
    table.insert(0, "image", [_image_name(Path(picture.path), base) for picture in pictures])
    table.insert(1, "label", pd.array([pd.NA] * len(pictures), dtype="Int64"))
    return table


def _image_name(path: Path, base: Path) -> str:
    """Relative to the manifest's folder, so that both can be moved together; absolute outside of it."""
    path = path.absolute()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _study_id(key: StudyKey) -> str:
    """StudyInstanceUID, or else patient, date and accession number. Patients with one UID are told apart by the reader
    of the manifest, as their column `patient` differs."""
    return key.uid or " ".join(word for word in (key.issuer, key.patient, key.date, key.accession) if word)


def _row(header: Header, key: StudyKey | None, study: str, name: str, part: str | None) -> dict[str, str]:
    patient = key.patient if key is not None else header.patient
    return {
        "patient": patient or (patient_folder(name) if key is None else "") or study,
        "study": study,
        "part": header.part or part_folder(name) or part or UNKNOWN_PART,
        **{fact: getattr(header, fact) for fact in FACTS},
    }


def _header_notes(pictures: Sequence[FoundPicture], table: pd.DataFrame) -> list[str]:
    """What the headers leave open, and how it was filled."""
    headers = [picture.header for picture in pictures]
    n_without = sum(header is None or not header.patient for header in headers)
    n_guessed = sum(header is not None and header.part_is_guessed for header in headers)
    n_unknown = int((table["part"] == UNKNOWN_PART).sum())
    notes = []
    if n_without:
        notes.append(
            f"{n_without:,} pictures have no patient in a header: each of their studies (in MURA's layout each "
            "patient's folder) counts as a patient. Correct the column patient where one has several."
        )
    if n_guessed:
        notes.append(
            f"{n_guessed:,} pictures have no BodyPartExamined: their part is from the description of "
            "protocol, series or study."
        )
    if n_unknown:
        notes.append(f"{n_unknown:,} pictures name no body part; part=<name> gives them one.")
    return notes


def _add_labels(
    table: pd.DataFrame, labels: LabelTable, pictures: Sequence[FoundPicture], notes: list[str]
) -> list[bool]:
    """Fill the column `label`; returns which pictures have one."""
    records = [
        {
            "study": header.study or row_study,
            "accession": header.accession,
            "patient": row_patient,
            "image": picture.name,
        }
        for picture, row_study, row_patient in zip(pictures, table["study"], table["patient"])
        for header in [picture.header or Header()]
    ]
    joined = labels.join(records)
    table["label"] = pd.array(joined.labels, dtype="Int64")
    notes.append(f"Labels of {labels.path.name} are joined by {joined.key}.")
    if joined.unmatched:
        heading = f"{len(joined.unmatched):,} labels of {labels.path.name} belong to no picture:"
        notes.append(numbered(heading, [f"{joined.key} {value}" for value in joined.unmatched]))
    conflicts = _conflicting_studies(table)
    if conflicts:
        raise DataError(
            numbered(f"{len(conflicts):,} studies have pictures with different labels:", conflicts)
            + f"\nLabels were joined by {joined.key}; give each study one label."
        )
    return [label is not None for label in joined.labels]


def _conflicting_studies(table: pd.DataFrame) -> list[str]:
    counts = table.groupby(["patient", "study"])["label"].nunique()
    return [f"study {study}" for _, study in counts.index[counts > 1]]
