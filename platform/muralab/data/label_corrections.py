"""Corrected labels: a table of what readers decided about studies, applied on top of a data set.

    study,label,reader,reason
    p17/s1,0,KM,an old fracture

`study` and `label` are required; every further column is ignored, so that the table of suspicious labels becomes one by
editing it: a row counts if its label differs from the data set's, or if it names a reader.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from muralab.data.manifest_rows import LABEL_FORMS, LABEL_WORDS, RowProblems, differing
from muralab.data.names import is_code
from muralab.data.sheet import Sheet, is_missing, read_sheet
from muralab.errors import SHOWN_PROBLEMS, DataError, numbered

REQUIRED_COLUMNS = ("study", "label")
OPTIONAL_COLUMNS = ("reader", "reason")
CLASSES = ("normal", "abnormal")
"""Label -> its name."""


@dataclass(frozen=True, kw_only=True)
class LabelCorrections:
    """The studies of a data set that readers decided about."""

    path: Path
    digest: str
    """Of the file's bytes, 32 hex characters."""
    decided: pd.DataFrame
    """One row per study: study (its name, not a code), before and label (0 or 1), reader and reason (may be empty)."""
    n_elsewhere: int = 0
    """Rows of the file about studies of other parts."""

    @property
    def changed(self) -> pd.DataFrame:
        """Those of `decided` whose label is another one than before."""
        return self.decided[self.decided["label"] != self.decided["before"]]

    def counts(self) -> dict[str, int]:
        """How many labels were changed to each class, and how many were confirmed."""
        labels = self.changed["label"]
        return {
            "to_abnormal": int((labels == 1).sum()),
            "to_normal": int((labels == 0).sum()),
            "confirmed": len(self.decided) - len(labels),
            "without_reader": int((self.changed["reader"] == "").sum()),
        }

    def sentence(self) -> str:
        """What was changed, without names."""
        counts, n = self.counts(), len(self.changed)
        text = (
            f"{n:,} stud{'y is' if n == 1 else 'ies are'} relabelled ({counts['to_abnormal']:,} to abnormal, "
            f"{counts['to_normal']:,} to normal) and {counts['confirmed']:,} confirmed by {self.path.name} "
            f"(digest {self.digest[:12]})"
        )
        if counts["without_reader"]:
            text += f"; new labels without a reader's name: {counts['without_reader']:,}"
        if self.n_elsewhere:
            text += f"; rows about other parts: {self.n_elsewhere:,}"
        return f"{text}."

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of the data set's index, whose names are not coded, with the labels that hold."""
        return self._relabelled(table, "label")

    def undo(self, table: pd.DataFrame) -> pd.DataFrame:
        """The same with the labels of before."""
        return self._relabelled(table, "before")

    def _relabelled(self, table: pd.DataFrame, column: str) -> pd.DataFrame:
        labels = table["study"].map(self.changed.set_index("study")[column])
        return table.assign(label=labels.fillna(table["label"]).astype("int64"))


def read_corrections(
    path: Path, index: pd.DataFrame, *, root: Path, elsewhere: Callable[[str], bool]
) -> LabelCorrections:
    """Read and check what readers decided.

    Args:
        path: a CSV or Parquet file.
        index: one row per image of the wanted part: study, label.
        root: the folder of the data set; names may begin with its own name, as in MURA's lists.
        elsewhere: whether a name is that of a study of another part.

    Raises:
        DataError: the file is not such a table, or rows cannot be used; lists everything found.
    """
    path = Path(path).absolute()
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise DataError(f"label_corrections={path} {state}. Give a CSV or Parquet file with the columns study, label.")
    sheet = read_sheet(path)
    rows, problems = _rows(sheet), RowProblems(path, "table of label corrections")
    before = index.drop_duplicates("study").set_index("study")["label"]
    known = frozenset(before.index)
    rows["study"] = [
        _study_name(cell, root.name, lambda name: name in known or elsewhere(name)) for cell in rows["study"].tolist()
    ]
    rows["value"] = rows["label"].str.lower().map(LABEL_WORDS)
    _check_labels(rows, problems)
    of_part = rows["study"].isin(known)
    others = pd.Series([not own and elsewhere(name) for own, name in zip(of_part, rows["study"])], index=rows.index)
    _check_studies(rows[~of_part & ~others & ~is_missing(rows["study"])], before.index.tolist(), problems)
    problems.raise_all()
    own = rows[of_part].astype({"value": "int64"})
    own = own.assign(label=own["value"], before=own["study"].map(before).astype("int64"))
    decided = own[(own["label"] != own["before"]) | (own["reader"] != "")]
    decided = decided.sort_values("reader", key=lambda names: names == "", kind="stable").drop_duplicates("study")
    columns = ["study", "before", "label", "reader", "reason"]
    return LabelCorrections(
        path=path,
        digest=sheet.digest,
        decided=decided.sort_values("study", ignore_index=True)[columns],
        n_elsewhere=int(others.sum()),
    )


def _rows(sheet: Sheet) -> pd.DataFrame:
    """study, label, reader, reason as text, and row (the number in the file); columns are found whatever their case.

    Raises:
        DataError: a required column is missing.
    """
    names = {str(name).casefold(): str(name) for name in sheet.cells.columns}
    lacking = [column for column in REQUIRED_COLUMNS if column not in names]
    if lacking:
        heading = f"The table of label corrections {sheet.path} lacks {len(lacking)} of its columns:"
        lines = [f"There is no column {column}." for column in lacking]
        raise DataError(f"{numbered(heading, lines)}\nIt has: {', '.join(map(str, sheet.cells.columns))}.")
    table = pd.DataFrame({"row": sheet.row_numbers}, index=sheet.cells.index)
    for column in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS):
        cells = sheet.cells[names[column]] if column in names else pd.Series("", index=table.index, dtype=str)
        table[column] = cells.where(~is_missing(cells), "")
    return table


def _study_name(cell: str, root_name: str, exists: Callable[[str], bool]) -> str:
    """The study that a cell names, also as MURA's lists write it: `MURA-v1.1/train/XR_WRIST/.../study1_positive/`."""
    plain = cell.replace("\\", "/").rstrip("/")
    return next((name for name in (cell, plain, plain.removeprefix(f"{root_name}/")) if exists(name)), plain)


def _check_labels(rows: pd.DataFrame, problems: RowProblems) -> None:
    nameless = rows[rows["study"] == ""]
    problems.add("Every row needs a study.", (f"row {row}: the study is missing" for row in nameless["row"]))
    wrong = rows[rows["value"].isna()]
    problems.add(
        f"{LABEL_FORMS.partition(';')[0]}.",
        (f"row {one.row}: '{one.label}' is not a label" for one in wrong.itertuples()),
    )
    usable = rows[rows["value"].notna() & (rows["study"] != "")].astype({"value": "int64"})
    problems.add(
        "Where readers disagree, decide, and leave one row of the study.",
        (
            f"row {places[1]}: study {study} has label {values[1]}, and {values[0]} in row {places[0]}"
            for study, places, values in differing(usable, "study", "value")
        ),
    )


def _check_studies(unknown: pd.DataFrame, known: Sequence[str], problems: RowProblems) -> None:
    coded = unknown[[is_code(name) for name in unknown["study"].tolist()]]
    problems.add(
        "Write the names of studies, not their codes: the data set's table in the cache's folder names/ has both.",
        (f"row {one.row}: {one.study} is a code" for one in coded.itertuples()),
    )
    problems.add(
        "Name studies as the data set does: as its column study, or by their folder, such as "
        f"{known[0]}; a name that several patients have begins with the patient.",
        (
            f"row {one.row}: there is no study {one.study}{_suggestion(one.study, known) if n < SHOWN_PROBLEMS else ''}"
            for n, one in enumerate(unknown.drop(coded.index).itertuples())
        ),
    )


def _suggestion(name: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f" (did you mean {match[0]}?)" if match else ""
