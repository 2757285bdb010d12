"""Check the body of a request: one of MLflow's JSON forms, or CSV, becomes rows and parameters.

Error messages are one sentence. They name the row and the field and never quote the request, which may hold an image
or a name.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model, field_validator
from starlette.exceptions import HTTPException

from muralab.errors import nearest
from muralab.serving.config import MAX_ROWS

JSON, CSV = "application/json", "text/csv"
MAX_STUDY = 1000
"""Characters in the name of a study."""
MAX_MARKS = 20_000
"""Opening brackets and commas in a body: 64 rows need about 300, and more could become millions of small objects."""

Record = dict[str, Any]
Problem = Mapping[str, Any]
"""An error of pydantic: type, loc, msg, input, ctx."""
T = TypeVar("T")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Row(_Strict):
    """One view."""

    image: str | None
    """Base64 text of an image file. Null is left to the model, which can still answer the other rows."""
    study: Annotated[str, Field(max_length=MAX_STUDY)] | None = None
    """Shared by the views of one study."""


class _SplitTable(_Strict):
    columns: list[str]
    data: list[list[Any]]
    index: list[int | str] | None = None
    """Not used; accepted because pandas writes one."""


_COLUMNS = TypeAdapter(dict[str, list[Any]])
_ROWS = TypeAdapter(Annotated[list[Row], Field(min_length=1, max_length=MAX_ROWS)])


class Payload(_Strict):
    """A JSON body."""

    dataframe_records: list[Record] = []
    dataframe_split: list[Record] = []
    inputs: list[Record] = []
    instances: list[Record] = []
    params: Record | None = None

    @field_validator("dataframe_split", mode="before")
    @classmethod
    def _from_split(cls, value: Any) -> list[Record]:
        table = _SplitTable.model_validate(value)
        if len(set(table.columns)) < len(table.columns) or len(table.index or table.data) != len(table.data):
            raise ValueError
        return [dict(zip(table.columns, row, strict=True)) for row in table.data]

    @field_validator("inputs", mode="before")
    @classmethod
    def _from_columns(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        columns = _COLUMNS.validate_python(value, strict=True)
        return [dict(zip(columns, row)) for row in zip(*columns.values(), strict=True)]


_RECORDS = 'a list of objects, one per view: [{"image": "<base64>", "study": "s1"}]'
FORMS = {
    "dataframe_records": _RECORDS,
    "dataframe_split": "an object with columns, a list of different names, and data, a list of rows with one value per "
    "column; an index, if present, is a list of one number or text per row",
    "inputs": 'a list of objects, or an object of lists of the same length: {"image": ["<base64>"], "study": ["s1"]}',
    "instances": _RECORDS,
}
"""MLflow's JSON forms, and what each must hold."""

_PARAM_TYPES: dict[str, Any] = {"double": float, "boolean": bool, "string": str}
"""By MLflow's name."""
_EXPECTED = {"float_type": "a number", "bool_type": "true or false", "string_type": "text"}
"""By pydantic's name of the error."""


@dataclass(frozen=True, kw_only=True)
class CheckedRequest:
    """What the model is asked."""

    rows: list[Row]
    params: dict[str, Any] = field(default_factory=dict)


def build_params_type(schema: Any) -> type[BaseModel]:
    """Type of the parameters that a model accepts.

    Args:
        schema: MLflow's schema of them; None: there are none.
    """
    specs = schema.params if schema else []
    fields: dict[str, Any] = {spec.name: (_PARAM_TYPES.get(spec.dtype.name, Any) | None, None) for spec in specs}
    return create_model("Params", __base__=_Strict, **fields)


def read_request(body: bytes, content_type: str | None, params_type: type[BaseModel]) -> CheckedRequest:
    """Parse and check the body of a request.

    Args:
        body: all of it.
        content_type: the header, if there is one.
        params_type: see `build_params_type`.

    Raises:
        HTTPException: 415 for the content type, 400 for anything else.
    """
    kind = _check_type(content_type)
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body.strip():
        raise HTTPException(400, "The body is empty.")
    if sum(body.count(mark) for mark in (b"{", b"[", b",")) > MAX_MARKS:
        raise HTTPException(400, f"The body holds more brackets and commas than {MAX_ROWS} rows can need.")
    if kind == CSV:
        return CheckedRequest(rows=_validate(_ROWS.validate_python, _parse_csv(body), _row_problem))
    payload = _validate(Payload.model_validate_json, body, _payload_problem)
    forms = payload.model_fields_set & FORMS.keys()
    if len(forms) != 1:
        raise HTTPException(400, f"The body needs exactly one of the keys {', '.join(FORMS)}; it has {len(forms)}.")
    params = _validate(params_type.model_validate, payload.params or {}, partial(_param_problem, params_type))
    rows = _validate(_ROWS.validate_python, getattr(payload, forms.pop()), _row_problem)
    return CheckedRequest(rows=rows, params=params.model_dump(exclude_unset=True))


def _check_type(content_type: str | None) -> str:
    kind, *rest = [piece.strip().lower() for piece in (content_type or "").split(";")]
    if kind not in (JSON, CSV):
        found = f"is {kind[:60]!r}" if kind else "is missing"
        raise HTTPException(415, f"The Content-Type {found}; send {JSON} or {CSV}.")
    if any(piece.replace('"', "") != "charset=utf-8" for piece in rest if piece):
        raise HTTPException(415, "The Content-Type may only add charset=utf-8.")
    return kind


def _parse_csv(body: bytes) -> list[Record]:
    """Rows of a CSV table; a study called NA or null keeps its name."""
    import pandas as pd

    if b"\0" in body:
        raise HTTPException(400, "The CSV holds zero bytes; send text in UTF-8.")
    body = body.lstrip()
    header = [name.strip(b' "\r') for name in body[:1000].partition(b"\n")[0].split(b",")]
    if sorted(header) not in ([b"image"], [b"image", b"study"]):
        raise HTTPException(400, "The CSV needs the header line image,study, or image alone.")
    try:
        body.decode()
        table = pd.read_csv(
            io.BytesIO(body), dtype=str, nrows=MAX_ROWS + 1, keep_default_na=False, skipinitialspace=True
        )
    except UnicodeDecodeError:
        raise HTTPException(400, "The CSV is not text in UTF-8.") from None
    except (ValueError, pd.errors.ParserError):
        table = None
    if table is None or not isinstance(table.index, pd.RangeIndex):
        reason = "a quoted value does not end, or a row has more values than the header"
        raise HTTPException(400, f"The body is not a CSV table with a header line: {reason}.")
    names = [name.decode() for name in header]
    return [dict(zip(names, row)) for row in table.fillna("").to_numpy().tolist()]


def _validate(validate: Callable[[Any], T], value: Any, describe: Callable[[Problem], str]) -> T:
    """Validate with pydantic; the first error becomes the message."""
    try:
        return validate(value)
    except ValidationError as error:
        raise HTTPException(400, describe(error.errors(include_url=False)[0])) from None


def _payload_problem(problem: Problem) -> str:
    match problem["type"], problem["loc"]:
        case "json_invalid", _:
            return f"The body is not valid JSON: {problem['ctx']['error']}."
        case "extra_forbidden", (str(key),):
            return f"The key {key[:40]!r} is unknown. {nearest(key[:40], Payload.model_fields)}"
        case _, ("params", *_):
            return 'params must be an object, such as {"explain": true}.'
        case _, (str(form), *_):
            return f"{form} must be {FORMS[form]}."
    return f"The body must be a JSON object with one of the keys {', '.join(FORMS)}."


def _param_problem(params_type: type[BaseModel], problem: Problem) -> str:
    name = str(problem["loc"][0])[:40]
    if problem["type"] == "extra_forbidden":
        return f"There is no parameter {name!r}. {nearest(name, params_type.model_fields)}"
    return f"The parameter {name} must be {_EXPECTED[problem['type']]}, not {_type_name(problem['input'])}."


def _row_problem(problem: Problem) -> str:
    match problem["type"], problem["loc"]:
        case "too_short", _:
            return "The request has no rows."
        case "too_long", _:
            n_rows = problem["ctx"]["actual_length"]
            return f"The request has {n_rows} rows; at most {MAX_ROWS} are answered at once."
        case "missing", (int(row), _):
            return f"Row {row + 1} has no image; it needs base64 text of one PNG, JPEG, TIFF, BMP or DICOM file."
        case "extra_forbidden", (int(row), _):
            return f"Row {row + 1} has a field other than image and study; remove it."
        case "string_too_long", (int(row), name):
            return f"Row {row + 1}: {name} is longer than {MAX_STUDY:,} characters."
        case _, (int(row), name):
            return f"Row {row + 1}: {name} must be text, not {_type_name(problem['input'])}."
    return str(problem["msg"])


def _type_name(value: object) -> str:
    names: dict[type, str] = {list: "a list", dict: "an object", bool: "true or false", str: "text"}
    return names.get(type(value), "a number")
