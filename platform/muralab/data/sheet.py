"""A table file as text cells: CSV as any program writes it (Excel of every locale among them), or Parquet.

Cells stay as they were written ("007", "NA"). What differs between files is read from them: the encoding (UTF-8,
UTF-16 or Windows-1252), the separator, and whether numbers have a decimal comma.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from muralab.data.files import digest_bytes
from muralab.data.images.picture import short_reason
from muralab.errors import DataError, numbered

SEPARATORS = (",", ";", "\t", "|")
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t|]*')
"""The first line of some of Excel's files."""
PARQUET = b"PAR1"
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of .xlsx and .ods, and of .xls."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SAMPLE_BYTES = 4096
MISSING = frozenset(
    {"", "na", "n/a", "nan", "null", "none", "#n/a", "#nv", "#ref!", "#value!", "#wert!", "#name?", "#bezug!"}
)
"""Cells, in lower case, that hold nothing: also the error values of a spreadsheet."""
POINT_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
COMMA_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d{0,2}(?:\.\d{3})+|[1-9]\d*)(?:,\d+)?(?:[eE][+-]?\d+)?")
"""With a decimal comma, and points between thousands. Leading zeros make a code of it ("007"), not a number."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The cells of a table file."""

    path: Path
    digest: str
    """of the file's bytes, 32 hex characters"""
    cells: pd.DataFrame
    """text without surrounding blanks, empty where there is nothing; columns are the names of the header"""
    row_numbers: npt.NDArray[np.int64]
    """of each row as a spreadsheet shows it: the header is row 1 of a CSV file; Parquet counts from 1"""
    decimal_comma: bool
    """whether numbers have a decimal comma"""

    def values(self, column: str) -> pd.Series:
        """A column as numbers (float64, NaN where there is none) if all its cells are, else as text."""
        cells = self.cells[column]
        present = ~is_missing(cells)
        form = COMMA_NUMBER if self.decimal_comma else POINT_NUMBER
        if not present.any() or not all(map(form.fullmatch, cells[present].tolist())):
            return cells.where(present, "")
        texts = cells[present]
        if self.decimal_comma:
            texts = texts.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        numbers = pd.Series(np.nan, index=cells.index, dtype="float64")
        numbers[present] = texts.astype("float64")
        return numbers


def is_missing(cells: pd.Series) -> pd.Series:
    """Whether each cell holds nothing."""
    return cells.str.lower().isin(MISSING)


def read_sheet(path: Path) -> Sheet:
    """Read a CSV or Parquet file.

    Raises:
        DataError: it cannot be read, is not a table, or its rows do not fit its header.
    """
    data = _read_bytes(path)
    digest = digest_bytes(data)
    if data.startswith(PARQUET):
        cells = _read_parquet(path, data)
        rows = np.arange(1, len(cells) + 1, dtype=np.int64)
        return Sheet(path=path, digest=digest, cells=cells, row_numbers=rows, decimal_comma=False)
    header, separator, records = _read_records(path, _decode(path, data))
    kept = [(number, cells) for number, cells in records if "".join(cells).strip()]  # Excel writes empty rows
    columns = _columns(path, header, [row for _, row in kept])
    cells = pd.DataFrame({name: pd.Series(column, dtype=str).str.strip() for name, column in columns.items()})
    return Sheet(
        path=path,
        digest=digest,
        cells=cells,
        row_numbers=np.array([number for number, _ in kept], dtype=np.int64),
        decimal_comma=separator != "," and any(_has_decimal_commas(cells[name].tolist()) for name in cells),
    )


def _read_bytes(path: Path) -> bytes:
    """The file's bytes; of a file that is not a table only the first are read."""
    try:
        with path.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
            _refuse_other_forms(path, sample)
            return sample + file.read()
    except OSError as error:
        raise DataError(f"The table {path} cannot be read: {error.strerror or error}.") from error


def _refuse_other_forms(path: Path, sample: bytes) -> None:
    if sample.startswith(WORKBOOKS):
        raise DataError(
            f"{path} is a spreadsheet's own file. Save it as CSV (in Excel: Save As, CSV UTF-8), or as Parquet."
        )
    if not sample.startswith((PARQUET, *UTF16)) and b"\0" in sample:
        raise DataError(f"{path} is not a table: expected text (CSV) or Parquet.")


def _read_parquet(path: Path, data: bytes) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(io.BytesIO(data))
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's types; the disk has been read before
        raise DataError(f"The Parquet file {path} cannot be read: {short_reason(error)}.") from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    repeated = [name for name, count in Counter(map(str, frame.columns)).items() if count > 1]
    if repeated:
        raise DataError(f"{path} has several columns named {', '.join(repeated)}. Rename all but one.")
    return pd.DataFrame({str(name): _texts(frame[name]) for name in frame.columns}, dtype=str)


def _texts(column: pd.Series) -> list[str]:
    """The values of a typed column as text; whole numbers that missing values have turned into floats stay whole."""
    if pd.api.types.is_float_dtype(column):
        present = column.dropna()
        if np.isfinite(present.to_numpy(dtype="float64")).all() and (present == present.round()).all():
            column = column.astype("Int64")
    missing = column.isna().to_numpy()
    return ["" if absent else _text(value) for value, absent in zip(column.astype(object), missing)]


def _text(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return str(value.isoformat()).removesuffix("T00:00:00")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip()


def _decode(path: Path, data: bytes) -> str:
    encodings = ("utf-16",) if data.startswith(UTF16) else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DataError(f"{path} is not text in UTF-8, UTF-16 or Windows-1252. Save it as CSV UTF-8.")


def _read_records(path: Path, text: str) -> tuple[list[str], str, list[tuple[int, list[str]]]]:
    """(header, separator, (number, cells) of each row).

    Raises:
        DataError: there is no header, a quote is not closed, or rows have more cells than the header.
    """
    lines = io.StringIO(text, newline="")
    first = next(lines, "")
    stated = SEPARATOR_LINE.fullmatch(first.strip("\r\n "))
    separator = stated[1] if stated else _separator(first)
    if not stated:
        lines.seek(0)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    records: list[tuple[int, list[str]]] = []
    try:
        for number, cells in enumerate(reader, start=2 if stated else 1):
            records.append((number, cells))
    except csv.Error as error:
        row = records[-1][0] + 1 if records else 1
        raise DataError(f"{path}, row {row}, cannot be read: {error}. Check the quotes around its values.") from error
    header = [cell.strip() for cell in records[0][1]] if records else []
    if not any(header):
        raise DataError(f"{path} has no header: expected the names of the columns in its first row.")
    long = [
        f"row {number}: {len(cells)} values" for number, cells in records[1:] if "".join(cells[len(header) :]).strip()
    ]
    if long:
        heading = f"{len(long)} rows of {path} have more values than the header, which names {len(header)} columns:"
        raise DataError(numbered(heading, long) + f"\nPut values that contain '{separator}' in double quotes.")
    return header, separator, records[1:]


def _separator(header: str) -> str:
    """The separator that gives the header the most columns; a comma where none does."""
    return max(SEPARATORS, key=lambda one: len(next(csv.reader([header], delimiter=one), [])))


def _columns(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Name -> cells; short rows are filled up, and columns with neither a name nor a value left out.

    Raises:
        DataError: a column with values has no name, or two have the same.
    """
    columns: dict[str, list[str]] = {}
    problems = []
    for place, (name, cells) in enumerate(zip(header, _by_column(len(header), rows))):
        if name in columns:
            problems.append(f"column {place + 1} has the name of an earlier one, '{name}'")
        elif name:
            columns[name] = cells
        elif any(cells):
            problems.append(f"column {place + 1} has values and no name")
    if problems:
        raise DataError(numbered(f"The header of {path} does not name its columns:", problems))
    return columns


def _by_column(n_columns: int, rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells of each column; short rows are filled up with empty ones."""
    first = [""] * n_columns  # so that no row alone decides how many columns there are
    return [list(cells[1:]) for cells in zip_longest(first, *rows, fillvalue="")]


def _has_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, some of them with a comma."""
    present = [cell for cell in cells if cell.lower() not in MISSING]
    return any("," in cell for cell in present) and all(COMMA_NUMBER.fullmatch(cell) for cell in present)


def file_digest(path: Path) -> str:
    """Digest of a file's bytes as in `Sheet`; empty where it cannot be read."""
    try:
        return digest_bytes(path.read_bytes())
    except OSError:
        return ""
