"""A request's body, looked at before MLflow's server sees it: what cannot be a request is refused in one sentence.

What is refused is not quoted: it may be a picture, or a name.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Callable, Collection
from typing import Any

from muralab.errors import nearest
from muralab.serving.config import MAX_ROWS

JSON, CSV = "application/json", "text/csv"
COLUMNS = ("image", "study")
MAX_TEXT = 1000
"""Characters of a study's name, and of an image that cannot be base64."""
MAX_MARKS = 20_000
"""Opening brackets and commas of a body; 64 rows have some 300. So a body cannot become millions of small objects."""


Record = dict[str, Any]


class RefusalError(Exception):
    """A request that is not answered: an HTTP status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def read_request(body: bytes, content_type: str | None, params: Collection[str]) -> bytes:
    """Refuse a body that is no request, and put it in a form that MLflow's server reads as it was meant.

    Of `inputs` and `instances` that server makes arrays of text: a study of null becomes one called "None", which all
    such rows share, and rows with and without a study do not fit together.

    Args:
        body: all of it.
        content_type: the header, if there was one.
        params: names that the model's `params` may have.

    Returns:
        The request as JSON.

    Raises:
        RefusalError: 415 for the content type, else 400.
    """
    kind = _check_type(content_type)
    if not body.strip():
        raise RefusalError(400, "The body is empty.")
    if sum(body.count(mark) for mark in (b"{", b"[", b",")) > MAX_MARKS:
        raise RefusalError(400, f"The body holds more brackets and commas than {MAX_ROWS} rows can need.")
    if kind == CSV:
        return json.dumps({"dataframe_records": _check_split(_parse_csv(body))}).encode()
    request = _parse(body)
    form, records = _check_request(request, params)
    # A letter beyond ASCII makes Python hold the whole text in two or four bytes a letter; escaped it does not.
    if form == "dataframe_records" and body.isascii():
        return body
    return json.dumps({"dataframe_records": records, "params": request.get("params") or {}}).encode()


def _check_type(content_type: str | None) -> str:
    kind, *rest = [piece.strip().lower() for piece in (content_type or "").split(";")]
    if kind not in (JSON, CSV):
        said = f"is {kind[:60]!r}" if kind else "is missing"
        raise RefusalError(415, f"The Content-Type {said}; send {JSON} or {CSV}.")
    for name, _, value in (piece.partition("=") for piece in rest if piece):
        if name != "charset" or value.strip('"') != "utf-8":
            raise RefusalError(415, f"The Content-Type may only add charset=utf-8, not {name[:40]!r} = {value[:40]!r}.")
        if value.startswith('"'):
            raise RefusalError(415, "Write charset=utf-8 without quotation marks.")
    return kind


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RefusalError(400, f"The body is not valid JSON: {error.msg} ({where}).") from None
    except UnicodeDecodeError:
        raise RefusalError(400, "The body is not valid JSON: it is no text in UTF-8.") from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, brackets nested without end
        raise RefusalError(400, "The body is not valid JSON: a number is too long or the nesting too deep.") from None


def _parse_csv(body: bytes) -> dict[str, list[Any]]:
    """CSV text -> columns and data; a study called NA or null keeps its name."""
    import pandas as pd

    if b"\0" in body:
        raise RefusalError(400, "The CSV holds zero bytes; send text in UTF-8.")
    if not _is_utf8(body):
        raise RefusalError(400, "The CSV is no text in UTF-8.")
    body = body.removeprefix(codecs.BOM_UTF8).lstrip()
    header = [name.strip(b' "\r') for name in body[:MAX_TEXT].partition(b"\n")[0].split(b",")]
    if sorted(header) not in ([b"image"], [b"image", b"study"]):
        raise RefusalError(400, "The CSV needs the header line image,study, or image alone.")
    try:
        table = pd.read_csv(
            io.BytesIO(body), dtype=str, nrows=MAX_ROWS + 1, keep_default_na=False, skipinitialspace=True
        )
    except (ValueError, pd.errors.ParserError):
        table = None
    if table is None or not isinstance(table.index, pd.RangeIndex):
        wrong = "quotes that do not end, or a row with more values than the header has"
        raise RefusalError(400, f"The body is no CSV table with a header line: {wrong}.")
    return {"columns": [name.decode() for name in header], "data": table.fillna("").to_numpy().tolist()}


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_request(request: Any, params: Collection[str]) -> tuple[str, list[Record]]:
    """The form of a payload, and its rows."""
    if not isinstance(request, dict):
        raise RefusalError(400, f"The body must be a JSON object with one of the keys {', '.join(FORMS)}.")
    unknown = [key for key in request if key not in FORMS and key != "params"]
    if unknown:
        raise RefusalError(
            400, f"The key {unknown[0][:40]!r} means nothing here. {nearest(unknown[0][:40], [*FORMS, 'params'])}"
        )
    forms = [key for key in request if key in FORMS]
    if len(forms) != 1:
        raise RefusalError(
            400, f"The body needs exactly one of the keys {', '.join(FORMS)}; it has {len(forms)} of them."
        )
    _check_params(request.get("params"), params)
    return forms[0], FORMS[forms[0]](request[forms[0]])


def _check_params(given: Any, known: Collection[str]) -> None:
    if given is not None and not isinstance(given, dict):
        raise RefusalError(400, "The key 'params' must hold an object, such as {\"explain\": true}.")
    unknown = [key for key in given or {} if key not in known]
    if unknown:
        raise RefusalError(400, f"There is no parameter {unknown[0][:40]!r}. {nearest(unknown[0][:40], known)}")
    for key, value in (given or {}).items():
        if isinstance(value, (list, dict)):
            raise RefusalError(400, f"The parameter {key} must be one value, not a list or an object.")


def _check_records(records: Any) -> list[Record]:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise RefusalError(400, 'Expected a list of objects, one a view: [{"image": "<base64>", "study": "s1"}].')
    _check_rows(len(records))
    for row, record in enumerate(records, start=1):
        if "image" not in record:
            raise RefusalError(400, f"Row {row} has no image; it needs base64 text of one PNG, JPEG or DICOM file.")
        if not record.keys() <= set(COLUMNS):
            raise RefusalError(400, f"Row {row} has more than an image and a study; leave the rest out.")
        _check_cells(row, record)
    return records


def _check_split(table: Any) -> list[Record]:
    whole = isinstance(table, dict) and all(isinstance(table.get(key), list) for key in ("columns", "data"))
    if not whole or set(table) - {"columns", "data", "index"}:
        raise RefusalError(400, "Expected an object with the lists columns and data.")
    columns, data = table["columns"], table["data"]
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) < len(columns):
        raise RefusalError(400, "The columns must be different names.")
    _check_rows(len(data))
    if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        raise RefusalError(
            400, f"Each row of data must be a list of {len(columns)} values, as many as there are columns."
        )
    index = table.get("index")
    if index is not None and not (isinstance(index, list) and len(index) == len(data) and _are_plain(index)):
        raise RefusalError(400, "The index must be a list of one number or text a row; leave it out.")
    return _check_records([dict(zip(columns, row)) for row in data])


def _check_inputs(inputs: Any) -> list[Record]:
    if isinstance(inputs, list):
        return _check_records(inputs)
    if not isinstance(inputs, dict) or not all(isinstance(values, list) for values in inputs.values()):
        raise RefusalError(
            400, 'Expected an object of lists, {"image": ["<base64>"], "study": ["s1"]}, or a list of objects.'
        )
    if len({len(values) for values in inputs.values()}) > 1:
        raise RefusalError(400, "The lists of the columns have different lengths.")
    _check_rows(max(map(len, inputs.values()), default=0))
    names = list(inputs)
    return _check_records([dict(zip(names, row)) for row in zip(*inputs.values())])


def _check_rows(n_rows: int) -> None:
    if not n_rows:
        raise RefusalError(400, "The request has no rows.")
    if n_rows > MAX_ROWS:
        raise RefusalError(400, f"The request has {n_rows} rows; at most {MAX_ROWS} are answered at once.")


_KINDS: dict[type, str] = {list: "a list", dict: "an object", bool: "true or false"}


def _check_cells(row: int, record: dict[str, Any]) -> None:
    for name in COLUMNS:
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            raise RefusalError(400, f"Row {row}: {name} must be text, not {_KINDS.get(type(value), 'a number')}.")
        if value is not None and len(value) > MAX_TEXT and (name == "study" or not value.isascii()):
            raise RefusalError(400, f"Row {row}: {name} is longer than {MAX_TEXT:,} characters, and no base64 text.")
        if value is not None and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise RefusalError(400, f"Row {row}: {name} holds half of a character (a lone surrogate).")


def _are_plain(values: list[Any]) -> bool:
    return all(isinstance(value, (str, int)) for value in values)


FORMS: dict[str, Callable[[Any], list[Record]]] = {
    "dataframe_records": _check_records,
    "dataframe_split": _check_split,
    "inputs": _check_inputs,
    "instances": _check_records,
}
"""MLflow's forms of a payload."""
