"""Bodies of requests become rows and parameters, or an error of one sentence."""

from __future__ import annotations

import json

import pytest
from mlflow.types.schema import DataType, ParamSchema, ParamSpec
from starlette.exceptions import HTTPException

from muralab.app.payload import CSV, JSON, CheckedRequest, build_params_type, read_request
from tests.app.conftest import text

PARAMS = build_params_type(
    ParamSchema(
        [
            ParamSpec("threshold", DataType.double, None),
            ParamSpec("explain", DataType.boolean, False),
            ParamSpec("policy", DataType.string, "refuse"),
        ]
    )
)
ROW = {"image": text(), "study": "s1"}


def read(payload: object, content_type: str | None = JSON) -> CheckedRequest:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return read_request(body, content_type, PARAMS)


ROWS = [{"image": "a", "study": "s1"}, {"image": "b", "study": None}, {"image": None, "study": "s1"}]
COLUMNS = {name: [row[name] for row in ROWS] for name in ("image", "study")}
SPLIT = {"columns": ["image", "study"], "data": [[*row.values()] for row in ROWS]}


@pytest.mark.parametrize(
    "payload",
    [
        {"dataframe_records": ROWS},
        {"dataframe_split": SPLIT},
        {"dataframe_split": {**SPLIT, "index": [4, "x", 4]}},
        {"inputs": ROWS},
        {"inputs": COLUMNS},
        {"instances": ROWS, "params": None},
    ],
)
def test_every_form_gives_the_same_rows(payload):
    assert [row.model_dump() for row in read(payload).rows] == ROWS


def test_a_row_may_omit_its_study():
    (row,) = read({"instances": [{"image": "a"}]}).rows
    assert row.study is None


def test_a_byte_order_mark_is_accepted():
    assert len(read(b"\xef\xbb\xbf" + json.dumps({"inputs": ROWS}).encode()).rows) == 3


def test_parameters_have_the_types_of_the_models_signature():
    params = {"threshold": 1, "explain": True, "policy": None}
    assert read({"inputs": ROWS, "params": params}).params == {"threshold": 1.0, "explain": True, "policy": None}


def test_a_model_without_parameters_accepts_none():
    with pytest.raises(HTTPException, match=r"There is no parameter 'explain'\. Known: none"):
        read_request(json.dumps({"inputs": ROWS, "params": {"explain": True}}).encode(), JSON, build_params_type(None))


@pytest.mark.parametrize("content_type", ["text/csv", "Text/CSV; charset=UTF-8", 'text/csv;charset="utf-8"'])
def test_csv_is_read(content_type):
    assert [row.study for row in read(b"image,study\nx,7\n", content_type).rows] == ["7"]


def test_csv_studies_named_like_missing_values_keep_their_names():
    names = ["NA", "null", "None", '"a, b"', "7", ""]
    body = "\ufeffstudy,image\r\n" + "".join(f"{name},x\r\n" for name in names)
    assert [row.study for row in read(body.encode(), CSV).rows] == ["NA", "null", "None", "a, b", "7", ""]


INVALID_JSON = {
    "incomplete": (b'{"dataframe_records": [', "not valid JSON: EOF while parsing a list at line 1 column 23"),
    "not UTF-8": (b'{"inputs": "\xff"}', "not valid JSON: invalid unicode"),
    "lone surrogate": (b'{"inputs": [{"image": "", "study": "\\ud800"}]}', "not valid JSON"),
    "deep": (b"[" * 15_000, "not valid JSON: recursion limit exceeded"),
    "long number": (b'{"inputs": 1' + b"0" * 5000 + b"}", "not valid JSON: number out of range"),
    "empty": (b" ", "The body is empty."),
    "tiny rows": (b'{"dataframe_records": [' + b"{}," * 15_000, "more brackets and commas than 64 rows"),
    "list": ([ROW], "must be a JSON object with one of the keys dataframe_records"),
    "no form": ({"params": {}}, "exactly one of the keys dataframe_records, .* it has 0"),
    "two forms": ({"inputs": [ROW], "instances": [ROW]}, "exactly one of the keys .* it has 2"),
    "misspelt key": ({"dataframe_record": [ROW]}, "'dataframe_record' is unknown. Did you mean 'dataframe_records'"),
    "misspelt parameter": ({"inputs": [ROW], "params": {"explian": True}}, "Did you mean 'explain'"),
    "text as number": ({"inputs": [ROW], "params": {"threshold": "x"}}, "threshold must be a number, not text"),
    "number as flag": ({"inputs": [ROW], "params": {"explain": 1}}, "explain must be true or false, not a number"),
    "list as parameter": ({"inputs": [ROW], "params": {"policy": [1]}}, "policy must be text, not a list"),
    "params": ({"inputs": [ROW], "params": 3}, "params must be an object"),
    "records": ({"dataframe_records": {"image": "x"}}, "dataframe_records must be a list of objects"),
    "null": ({"instances": None}, "instances must be a list of objects"),
    "split": ({"dataframe_split": [1]}, "dataframe_split must be an object with columns"),
    "ragged split": ({"dataframe_split": {"columns": ["image"], "data": [["x", 2]]}}, "one value per column"),
    "columns": ({"dataframe_split": {"columns": ["image"] * 2, "data": []}}, "different names"),
    "index": ({"dataframe_split": {**SPLIT, "index": [1]}}, "one number or text per row"),
    "lengths": ({"inputs": {"image": ["x"], "study": []}}, "lists of the same length"),
    "no rows": ({"dataframe_records": []}, "The request has no rows."),
    "no image": ({"dataframe_records": [ROW, {"picture": "x"}]}, "Row 2 has no image"),
    "number as image": ({"inputs": [{"image": 7}]}, "Row 1: image must be text, not a number"),
    "many rows": ({"dataframe_records": [{"image": "x"}] * 65}, "The request has 65 rows; at most 64"),
    "more fields": ({"inputs": [{**ROW, "sutdy": "x"}]}, "Row 1 has a field other than image and study"),
    "long study": ({"inputs": [{**ROW, "study": "x" * 1001}]}, "Row 1: study is longer than 1,000 characters"),
}


@pytest.mark.parametrize("name", INVALID_JSON)
def test_invalid_json_is_refused_in_one_sentence_that_quotes_no_image(name):
    payload, message = INVALID_JSON[name]
    with pytest.raises(HTTPException, match=message) as caught:
        read(payload)
    assert caught.value.status_code == 400
    assert "\n" not in caught.value.detail
    assert ROW["image"][:20] not in caught.value.detail


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"image," * 25_000, "more brackets and commas than 64 rows"),
        (f"{text()},s1\n".encode(), "needs the header line image,study"),
        (b"picture\nx\n", "needs the header line image,study"),
        (b"image\n" + b"x\n" * 400_000, "has 65 rows; at most 64"),
        (b"image\n\xff\n", "The CSV is not text in UTF-8"),
        (b"image\n\0\n", "zero bytes"),
        (b"image\nx,y\n", "not a CSV table with a header line"),
        (b'image\n"x', "not a CSV table with a header line"),
    ],
)
def test_invalid_csv_is_refused(body, message):
    with pytest.raises(HTTPException, match=message) as caught:
        read(body, CSV)
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("application/xml", "The Content-Type is 'application/xml'; send application/json"),
        ("application/vnd.apache.parquet", "send application/json or text/csv"),
        ("application/json; charset=latin-1", "may only add charset=utf-8"),
        (None, "The Content-Type is missing"),
    ],
)
def test_other_content_types_are_refused(content_type, message):
    with pytest.raises(HTTPException, match=message) as caught:
        read(b"{}", content_type)
    assert caught.value.status_code == 415
