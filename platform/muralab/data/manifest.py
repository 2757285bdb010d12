"""A manifest: a table of image files (CSV or Parquet) in place of a MURA tree.

    image,label,patient,study,part,split,age,device
    scans/0001.dcm,1,p17,s1,wrist,train,45,Agfa

`image`, `label` and `patient` are required; `study`, `part` and `split` are optional; all further columns are kept as
facts about the image. Other names are mapped to these with `columns=image:path,label:fracture`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pandas as pd

from muralab.data.manifest_rows import RowProblems, check_rows, label_of, name_studies
from muralab.data.mura import ALL_PARTS, COLUMNS, require_part
from muralab.data.sheet import Sheet, is_missing, read_sheet
from muralab.data.unnamed import unnamed_note
from muralab.errors import DataError, nearest, numbered
from muralab.storage_uri import is_uri

REQUIRED_COLUMNS = ("image", "label", "patient")
OPTIONAL_COLUMNS = ("study", "part", "split")
MANIFEST_COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
"""What the platform reads; every other column of a manifest is a fact about the image: age, sex, device, site, view."""
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
UNSPLIT = "all"
"""The split of every row where a manifest has no column for it."""
UNKNOWN_PART = "unknown"
"""The part of rows whose cell is empty."""
PART_FORM = re.compile(r"[\w .-]+")
"""Experiments and models are named after the part."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The rows of one body part of a manifest, checked."""

    path: Path
    root: Path
    """The folder that image names start from."""
    digest: str
    """Of the file's bytes, 32 hex characters."""
    columns: Mapping[str, str]
    """Those of `MANIFEST_COLUMNS` that the file has -> their names in the file."""
    index: pd.DataFrame
    """As `read_index` returns it for a tree; split is train, validation or test, or `UNSPLIT`."""
    facts: pd.DataFrame
    """The further columns by image (the index), in the order of `index`: numbers as float64 with NaN for missing ones,
    everything else as text, empty where it is missing."""
    parts: tuple[str, ...]
    """All parts of the file, sorted."""
    n_rows: int
    """Of the file, all parts together."""
    notes: tuple[str, ...] = ()
    """What the reader of a log should know."""
    other_studies: frozenset[str] = frozenset()
    """Names of the studies of the file's other parts, each also with its patient before it."""

    @property
    def has_split(self) -> bool:
        """Whether the file says which images are for testing."""
        return "split" in self.columns

    @cached_property
    def study_facts(self) -> pd.DataFrame:
        """The further columns by study (the index): missing where the images of a study differ."""
        by_study = self.facts.groupby(self.index["study"].to_numpy())
        if self.facts.columns.empty:
            return pd.DataFrame(index=pd.Index(sorted(set(self.index["study"])), name="study"))
        first, differs = by_study.first(skipna=False), by_study.nunique(dropna=False) > 1
        for name in self.facts:
            absent = float("nan") if pd.api.types.is_numeric_dtype(first[name]) else ""
            first.loc[differs[name], name] = absent
        return first.rename_axis("study")


def is_manifest(data: str) -> bool:
    """Whether a data path or URI names a table rather than a folder; it may not exist."""
    if is_uri(data):
        return PurePosixPath(urlsplit(data).path).suffix.lower() in SUFFIXES
    path = Path(data)
    return path.is_file() or (path.suffix.lower() in SUFFIXES and not path.is_dir())


def require_manifest(path: Path) -> None:
    """Refuse the path of a manifest where there is no file.

    Raises:
        DataError: names it.
    """
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise DataError(f"The manifest {path} {state}. Give the path of a CSV or Parquet file.")


def read_manifest(
    path: Path, part: str, *, root: str | Path | None = None, columns: Mapping[str, str] | None = None
) -> Manifest:
    """Read and check the rows of one part.

    Args:
        path: a CSV or Parquet file.
        part: one of the manifest's parts, or "all"; the part of all rows where there is no such column.
        root: the folder that image paths start from; None: the file's own.
        columns: those of `MANIFEST_COLUMNS` -> their names in the file, where these differ.

    Raises:
        DataError: the file is not such a table, lacks the part, or rows cannot be used; lists everything found.
    """
    path = Path(path).absolute()
    require_manifest(path)
    folder = path.parent if root is None else Path(root).absolute()
    if not folder.is_dir():
        raise DataError(f"root={folder} is not a folder. Give the folder that the image paths of {path} start from.")
    sheet = read_sheet(path)
    names = find_columns(sheet, columns or {})
    parts = _parts(sheet, names, part)
    chosen = _chosen(path, parts, part)
    rows, notes = _read_rows(sheet, names, parts, chosen, folder)
    order = rows["image"].argsort(kind="stable").to_numpy()
    further = [name for name in sheet.cells if name not in names.values()]
    facts = pd.DataFrame({name: sheet.values(name) for name in further}, index=sheet.cells.index)[chosen]
    return Manifest(
        path=path,
        root=folder,
        digest=sheet.digest,
        columns=names,
        index=rows.iloc[order][list(COLUMNS)].reset_index(drop=True),
        facts=facts.set_index(pd.Index(rows["image"], name="image")).iloc[order],
        parts=tuple(sorted(set(parts))),
        n_rows=len(sheet.cells),
        notes=(*_part_notes(path, names, parts, part), *notes, *_unnamed_notes(sheet, names, folder)),
        other_studies=_study_names(sheet, names, ~chosen, folder),
    )


def find_columns(sheet: Sheet, columns: Mapping[str, str]) -> dict[str, str]:
    """Those of `MANIFEST_COLUMNS` that a file has -> their names in it, whatever their case.

    Raises:
        DataError: a required or a given column is missing.
    """
    known = [str(name) for name in sheet.cells.columns]
    found, problems = {}, []
    for column in MANIFEST_COLUMNS:
        wanted = columns.get(column, column)
        name = _match(wanted, known)
        if name is not None:
            found[column] = name
        elif column in columns:
            problems.append(f"columns={column}:{wanted}: there is no column '{wanted}'. {nearest(wanted, known)}")
        elif column in REQUIRED_COLUMNS:
            problems.append(f"There is no column {column}: name the one that holds it with columns={column}:<name>.")
    if problems:
        heading = f"The manifest {sheet.path} lacks {len(problems)} column{'s' * (len(problems) > 1)}:"
        advice = "All go into one option: columns=image:<name>,label:<name>,patient:<name>."
        if "patient" not in found:
            advice += " Where patients are not known, the column of the images as patient makes each image its own."
        raise DataError(numbered(heading, problems) + f"\nIt has: {', '.join(known)}.\n{advice}")
    return found


def _match(wanted: str, known: Sequence[str]) -> str | None:
    if wanted in known:
        return wanted
    alike = [name for name in known if name.casefold() == wanted.casefold()]
    return alike[0] if len(alike) == 1 else None


def _parts(sheet: Sheet, names: Mapping[str, str], part: str) -> pd.Series:
    """The part of each row in lower case; the wanted one where the file does not say."""
    if "part" not in names:
        return pd.Series(part, index=sheet.cells.index, dtype=str)
    cells = sheet.cells[names["part"]]
    return cells.mask(is_missing(cells), UNKNOWN_PART).str.lower().str.removeprefix("xr_")


def _chosen(path: Path, parts: pd.Series, part: str) -> pd.Series:
    """Which rows are of the wanted part.

    Raises:
        DataError: none is, or the part cannot be a name.
    """
    if parts.empty:
        raise DataError(f"The manifest {path} has no rows below its header.")
    chosen = pd.Series(part == ALL_PARTS, index=parts.index) | (parts == part)
    if not chosen.any():
        require_part(f"The manifest {path}", part, sorted(set(parts)))
    if not PART_FORM.fullmatch(part):
        raise DataError(f"part={part}: expected a name of letters, digits, blanks, dots and hyphens, such as wrist.")
    return chosen


def _read_rows(
    sheet: Sheet, names: Mapping[str, str], parts: pd.Series, chosen: pd.Series, root: Path
) -> tuple[pd.DataFrame, list[str]]:
    """The checked rows of one part with the columns of the index and their `row` in the file, and notes."""
    cells = sheet.cells[chosen]
    table = pd.DataFrame({column: cells[name].to_numpy() for column, name in names.items()}, dtype=str)
    table["row"], table["part"] = sheet.row_numbers[chosen.to_numpy()], parts[chosen].to_numpy()
    table["image"] = image_names(table["image"], root)
    table["path"] = [image if posixpath.isabs(image) else f"{root}/{image}" for image in table["image"].tolist()]
    table["split"] = table["split"].str.lower() if "split" in names else UNSPLIT
    if "study" in names:
        table["study"], notes = name_studies(table)
    else:
        table["study"], notes = (
            table["image"],
            [f"{sheet.path.name} has no column study: every image is its own study."],
        )
    problems = RowProblems(sheet.path)
    check_rows(table, root, problems, has_split="split" in names)
    problems.raise_all()
    table["label"] = [label_of(cell) for cell in table["label"].tolist()]
    return table, notes


def _study_names(sheet: Sheet, names: Mapping[str, str], rows: pd.Series, root: Path) -> frozenset[str]:
    """Everything that a study of some rows may be called, see `name_studies`."""
    cells = sheet.cells[rows]
    images = pd.Series(image_names(cells[names["image"]], root), index=cells.index, dtype=str)
    studies = images if "study" not in names else cells[names["study"]].mask(is_missing(cells[names["study"]]), images)
    return frozenset(studies) | frozenset(cells[names["patient"]] + "/" + studies)


def image_names(cells: pd.Series, root: Path) -> list[str]:
    """Each image's POSIX path relative to the root; absolute outside of it, empty for a missing one."""
    below = f"{root.as_posix().rstrip('/')}/"
    names = cells.mask(is_missing(cells), "").str.replace("\\", "/", regex=False).tolist()
    return [posixpath.normpath(name).removeprefix(below) if name else "" for name in names]


def _unnamed_notes(sheet: Sheet, names: Mapping[str, str], root: Path) -> list[str]:
    """What the file does not name, of any part, in the folders of its images."""
    images = image_names(sheet.cells[names["image"]], root)
    return unnamed_note(
        sheet.path, [image if posixpath.isabs(image) else f"{root}/{image}" for image in images if image]
    )


def _part_notes(path: Path, names: Mapping[str, str], parts: pd.Series, part: str) -> list[str]:
    """What the part leaves out, or that it is taken from the option."""
    if "part" not in names:
        return [f"{path.name} has no column part: all of its {len(parts):,} images are taken as part={part}."]
    if part == ALL_PARTS or (parts == part).all():
        return []
    others = parts[parts != part].value_counts().sort_index()
    counts = ", ".join(f"{count:,} of {name}" for name, count in others.items())
    return [f"{path.name}: {int(others.sum()):,} images of other parts are not used ({counts})."]
