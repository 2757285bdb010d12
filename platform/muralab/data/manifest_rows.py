"""The checks of a manifest's rows: everything that is wrong, with its row, in one list.

Tables here have one row per image: row (its number in the file), image, label (as it was written), patient, study,
part, split and path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from muralab.data.sheet import is_missing
from muralab.data.splits import SETS
from muralab.errors import SHOWN_PROBLEMS, DataError, numbered

LABEL_WORDS = {
    **dict.fromkeys(("0", "0.0", "0,0", "false", "falsch", "negative", "normal"), 0),
    **dict.fromkeys(("1", "1.0", "1,0", "true", "wahr", "positive", "abnormal"), 1),
}
"""Cell in lower case -> label."""
LABEL_FORMS = (
    "Labels are 0 or 1, false or true, negative or positive, normal or abnormal; columns=label:<name> reads another "
    "column."
)
SHORTENED = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)
"""A long number as a spreadsheet shows and saves it: several different ones become equal."""
FILLED = {
    "image": "Every row needs an image.",
    "patient": "Every row needs a patient, because the sets are split by patient.",
}
WHOLE_PATIENTS = "Put all images of a patient into one set, or leave the column split out to have the sets drawn."


class RowProblems:
    """What is wrong with the rows of a file, by what fixes it."""

    def __init__(self, path: Path, what: str = "manifest") -> None:
        self.path, self.what = path, what
        self.lines: dict[str, list[str]] = {}

    def add(self, fix: str, lines: Iterable[str]) -> None:
        """Add lines that one sentence says how to fix."""
        found = list(lines)
        if found:
            self.lines.setdefault(fix, []).extend(found)

    def raise_all(self) -> None:
        """Raise what was found: the first of every kind are shown, and the number of all.

        Raises:
            DataError: there is anything.
        """
        if not self.lines:
            return
        each = max(1, SHOWN_PROBLEMS // len(self.lines))
        shown = [line for lines in self.lines.values() for line in lines[:each]]
        rest = [line for lines in self.lines.values() for line in lines[each:]]
        n = len(shown) + len(rest)
        heading = f"The {self.what} {self.path} has {n:,} problem{'s' * (n > 1)}:"
        raise DataError("\n".join([numbered(heading, [*shown, *rest]), *self.lines]))


def label_of(cell: str) -> int:
    """The label that a cell stands for: 0 (normal) or 1 (abnormal).

    Raises:
        KeyError: it stands for none.
    """
    return LABEL_WORDS[cell.lower()]


def check_rows(table: pd.DataFrame, root: Path, problems: RowProblems, *, has_split: bool) -> None:
    """Find everything that is wrong with the rows.

    Args:
        table: see above.
        root: the folder that image names start from.
        problems: collects it.
        has_split: whether the file says which set an image is in.
    """
    _check_names(table, problems)
    _check_images(table, root, problems)
    _check_labels(table, problems)
    if has_split:
        _check_splits(table, problems)


def name_studies(table: pd.DataFrame) -> tuple[pd.Series, list[str]]:
    """The study of each row, never one of two patients, and notes.

    A name that several patients have (`study1`) counts within each patient; an image without a study is its own.
    """
    study = table["study"].where(~is_missing(table["study"]), table["image"])
    shared = table.groupby(study)["patient"].nunique()
    repeated = study.isin(shared.index[shared > 1])
    if not repeated.any():
        return study, []
    name = study[repeated].iloc[0]
    note = f"Study names such as '{name}' occur with several patients: they count within each patient."
    return study.where(~repeated, table["patient"] + "/" + study), [note]


def _check_names(table: pd.DataFrame, problems: RowProblems) -> None:
    for column, fix in FILLED.items():
        missing = table.loc[is_missing(table[column]), "row"]
        problems.add(fix, (f"row {row}: the {column} is missing" for row in missing))
    for column in ("patient", "study"):
        short = table[[SHORTENED.fullmatch(cell) is not None for cell in table[column].tolist()]]
        problems.add(
            "Format such columns as text in the spreadsheet and enter the numbers again: different ones became equal.",
            (f"row {one.row}: the {column} {getattr(one, column)} was shortened" for one in short.itertuples()),
        )


def _check_images(table: pd.DataFrame, root: Path, problems: RowProblems) -> None:
    named = table[table["image"] != ""]
    first = named.drop_duplicates("image").set_index("image")["row"]
    again = named[named["image"].duplicated()]
    problems.add(
        "Name every image once.",
        (f"row {one.row}: {one.image} is also in row {first[one.image]}" for one in again.itertuples()),
    )
    unique = named.drop_duplicates("image")
    missing = unique[[not os.path.isfile(path) for path in unique["path"].tolist()]]  # noqa: PTH113 (half the time of Path)
    problems.add(
        f"Image paths start from {root}: give root=<folder> where they start from another one, or remove these rows.",
        (f"row {one.row}: there is no file {one.image}" for one in missing.itertuples()),
    )


def _check_labels(table: pd.DataFrame, problems: RowProblems) -> None:
    labels = table["label"].str.lower().map(LABEL_WORDS)
    wrong = table[labels.isna()]
    problems.add(
        f"{LABEL_FORMS} Remove rows without a label.",
        (f"row {one.row}: '{one.label}' is not a label" for one in wrong.itertuples()),
    )
    known = table.assign(value=labels).dropna(subset="value").astype({"value": "int64"})
    problems.add(
        "Give all images of a study the study's label.",
        (
            f"row {rows[1]}: study {study} has label {values[1]}, and {values[0]} in row {rows[0]}"
            for study, rows, values in differing(known, "study", "value")
        ),
    )


def _check_splits(table: pd.DataFrame, problems: RowProblems) -> None:
    is_set = table["split"].isin(SETS)
    wrong, known = table[~is_set], table[is_set & ~is_missing(table["patient"])]
    problems.add(
        "A split is train, validation (selects models) or test (for the final figures).",
        (f"row {one.row}: '{one.split}' is not a split" for one in wrong.itertuples()),
    )
    problems.add(
        WHOLE_PATIENTS,
        (
            f"row {rows[1]}: patient {patient} is in {values[1]}, and in {values[0]} in row {rows[0]}"
            for patient, rows, values in differing(known, "patient", "split")
        ),
    )


def differing(table: pd.DataFrame, by: str, column: str) -> Iterator[tuple[str, list[int], list[object]]]:
    """Groups with several values of a column, each with its first two values and the first row of each."""
    each = table.drop_duplicates([by, column])
    places = each.groupby(by).cumcount()
    first = each[places == 0].set_index(by)
    for second in each[places == 1].itertuples():
        name = getattr(second, by)
        yield str(name), [first["row"][name], second.row], [first[column][name], getattr(second, column)]
