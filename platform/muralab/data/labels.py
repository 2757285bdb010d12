"""Labels from a table of their own, joined to pictures by study, accession number or patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muralab.data.manifest_rows import LABEL_FORMS, LABEL_WORDS
from muralab.data.sheet import Sheet, is_missing, read_sheet
from muralab.errors import DataError, nearest, numbered

KEYS = ("study", "accession", "patient", "image")
"""What labels may be joined by, the most exact first."""
LABEL = "label"
LABEL_COLUMNS = (LABEL, *KEYS)
_ALIASES = {
    "study": ("studyinstanceuid", "studyuid"),
    "accession": ("accessionnumber", "accessionno"),
    "patient": ("patientid",),
    "image": ("file", "path", "filename"),
    LABEL: ("labels", "abnormal"),
}

Record = Mapping[str, str]
"""`KEYS` -> what a picture has for each, empty where it has nothing."""


@dataclass(frozen=True, kw_only=True)
class JoinedLabels:
    """A label for each picture that has one."""

    labels: list[int | None]
    key: str
    """One of KEYS."""
    unmatched: list[str]
    """Keys of the table that no picture has, sorted."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """A table of labels."""

    path: Path
    by_key: Mapping[str, Mapping[str, int]]
    """One of KEYS -> value -> label; only columns that the table has."""

    def join(self, pictures: Sequence[Record]) -> JoinedLabels:
        """Label pictures by the most exact key that matches any of them.

        Raises:
            DataError: no picture has a label.
        """
        for key, labels in self.by_key.items():
            if any(picture[key] in labels for picture in pictures):
                found = [labels.get(picture[key]) if picture[key] else None for picture in pictures]
                present = {picture[key] for picture in pictures}
                return JoinedLabels(labels=found, key=key, unmatched=sorted(set(labels) - present))
        raise DataError(self._no_match(pictures))

    def _no_match(self, pictures: Sequence[Record]) -> str:
        lines = []
        for key, labels in self.by_key.items():
            ours = sorted({picture[key] for picture in pictures if picture[key]})
            theirs = ", ".join(list(labels)[:3])
            lines.append(f"{key}: the table has {theirs} ..., the pictures have {', '.join(ours[:3]) or 'none'} ...")
        return numbered(f"No picture has a label in {self.path}; compared were:", lines) + (
            "\nGive columns=study:<name>, accession:<name> or patient:<name> if another column names the pictures."
        )


def read_labels(path: Path, columns: Mapping[str, str] | None = None) -> LabelTable:
    """Read a table of labels: CSV (as any program writes it) or Parquet.

    Args:
        path: a table with a label and one or several of KEYS; StudyInstanceUID, AccessionNumber and PatientID are
            understood.
        columns: those of LABEL_COLUMNS -> their names in the file, where these differ.

    Raises:
        DataError: the file is not such a table, has cells that are not labels, or gives one key two labels.
    """
    sheet = read_sheet(path)
    names = _find_columns(sheet, columns or {})
    cells = sheet.cells[names[LABEL]]
    labels = cells.str.lower().map(LABEL_WORDS)
    blank = is_missing(cells)
    wrong = sheet.cells.index[labels.isna() & ~blank]
    if len(wrong):
        lines = [f"row {sheet.row_numbers[row]}: '{cells[row]}' is not a label" for row in wrong]
        raise DataError(numbered(f"{len(lines):,} rows of {path} have no usable label:", lines) + f"\n{LABEL_FORMS}")
    known = sheet.cells[~blank].assign(**{LABEL: labels[~blank].astype(int)})
    return LabelTable(path=path, by_key=_by_key(sheet, known.to_dict("list"), names))


def _by_key(sheet: Sheet, cells: Mapping[str, list[str]], names: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Each key column as a mapping; a key with two labels cannot be one."""
    found: dict[str, dict[str, int]] = {}
    problems: dict[str, list[str]] = {}
    for key in KEYS:
        if key not in names:
            continue
        labels: dict[str, set[int]] = {}
        for value, label in zip(cells[names[key]], cells[LABEL]):
            if value:
                labels.setdefault(value, set()).add(int(label))
        problems[key] = [f"{key} {value}" for value, given in labels.items() if len(given) > 1]
        if not problems[key]:
            found[key] = {value: next(iter(given)) for value, given in labels.items()}
    if not found:
        lines = [line for several in problems.values() for line in several]
        heading = f"{sheet.path} gives {len(lines):,} keys two labels:"
        raise DataError(numbered(heading, lines) + "\nGive a column that names each study once, or correct the table.")
    return found


def _find_columns(sheet: Sheet, columns: Mapping[str, str]) -> dict[str, str]:
    """Those of LABEL_COLUMNS that the table has -> their names in it."""
    known = [str(name) for name in sheet.cells.columns]
    plain = {re.sub(r"[\W_]", "", name).casefold(): name for name in known}
    found: dict[str, str] = {}
    problems = [
        f"columns={name}: expected one of {', '.join(LABEL_COLUMNS)}." for name in columns if name not in LABEL_COLUMNS
    ]
    for column in LABEL_COLUMNS:
        if column in columns:
            if columns[column] in known:
                found[column] = columns[column]
            else:
                problems.append(f"There is no column '{columns[column]}'. {nearest(columns[column], known)}")
            continue
        match = next((plain[alias] for alias in (column, *_ALIASES[column]) if alias in plain), None)
        if match is not None:
            found[column] = match
    if LABEL not in found and not problems:
        problems.append(f"There is no column label: give columns=label:<name>. It has: {', '.join(known)}.")
    if not set(KEYS) & set(found) and not problems:
        problems.append(f"There is no column study, accession, patient or image. It has: {', '.join(known)}.")
    if problems:
        raise DataError(numbered(f"The table of labels {sheet.path} cannot be used:", problems))
    return found
