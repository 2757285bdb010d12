"""The app's answers: MLflow's forms as they are, everything else one sentence of JSON."""

from __future__ import annotations

import json
import logging
import socket
import urllib.request

import pytest

from muralab.app.build import build_app
from muralab.app.limits import Limits
from tests.app.conftest import TOKEN, post, serving, text
from tests.fixtures.payloads import invalid_requests

ROW = {"image": text(180), "study": "s1"}
FORMS = {
    "records": {"dataframe_records": [ROW, ROW]},
    "split": {"dataframe_split": {"columns": ["image", "study"], "data": [[text(), "s1"]] * 2}},
    "split with index": {"dataframe_split": {"index": [4, 7], "columns": ["image"], "data": [[text()]] * 2}},
    "inputs": {"inputs": {"image": [text()] * 2, "study": ["s1"] * 2}},
    "inputs as records": {"inputs": [ROW, ROW]},
    "instances": {"instances": [ROW, ROW], "params": {"explain": True}},
    "without study": {"dataframe_records": [{"image": text()}] * 2, "params": None},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_answered(address, form):
    status, body, _ = post(address, FORMS[form])
    assert (status, len(body.get("predictions", []))) == (200, 2), body


NO_STUDY = {
    "records": {"dataframe_records": [{"image": text(), "study": None}, {"image": text()}]},
    "split": {"dataframe_split": {"columns": ["image", "study"], "data": [[text(), None]] * 2}},
    "inputs": {"inputs": {"image": [text()] * 2, "study": [None] * 2}},
    "instances": {"instances": [{"image": text(), "study": None}] * 2, "params": {"explain": True}},
    "instances, one without": {"instances": [ROW, {"image": text()}]},
}


@pytest.mark.parametrize("form", NO_STUDY)
def test_a_row_without_a_study_stands_alone_in_every_form(address, form):
    status, body, _ = post(address, NO_STUDY[form])
    assert status == 200, body
    assert all("single view" in row["warnings"] for row in body["predictions"])
    assert all((row.get("heatmap") is not None) == ("params" in NO_STUDY[form]) for row in body["predictions"])


SAME = [{"image": text(), "study": "s1"}, {"image": text(), "study": None}, {"image": text(), "study": "s1"}]
LISTS = {name: [row[name] for row in SAME] for name in ("image", "study")}
SPLIT = {"columns": ["image", "study"], "data": [[*row.values()] for row in SAME], "index": ["\ud800", "b", "c"]}


@pytest.mark.parametrize(
    ("form", "rows"),
    [("dataframe_records", SAME), ("dataframe_split", SPLIT), ("inputs", SAME), ("inputs", LISTS), ("instances", SAME)],
)
def test_every_form_groups_the_same_rows(address, form, rows):
    status, body, _ = post(address, {form: rows, "params": {"threshold": 0.25}})
    assert status == 200, body
    assert ["single view" in row["warnings"] for row in body["predictions"]] == [False, True, False]
    assert {row["threshold"] for row in body["predictions"]} == {0.25}


def test_a_csv_groups_as_json_does(address):
    rows = "".join(f"{text()},{study}\n" for study in ("s1", "", "s1", "NA"))
    status, body, _ = post(address, f"image,study\n{rows}".encode(), "text/csv")
    assert status == 200, body
    assert ["single view" in row["warnings"] for row in body["predictions"]] == [False, True, False, True]


@pytest.mark.parametrize("form", ["dataframe_records", "inputs", "instances"])
def test_an_image_of_null_is_said_to_be_none(address, form):
    status, body, _ = post(address, {form: [{"image": None}, ROW]})
    assert (status, "row 1: no image (null)" in body["message"]) == (400, True), body


def test_csv_is_answered(address):
    status, body, _ = post(address, f"image,study\n{text()},7\n".encode(), "text/csv; charset=utf-8")
    assert (status, len(body["predictions"])) == (200, 1)


def test_csv_studies_called_like_nothing_keep_their_names(address):
    names = ["NA", "NA", "null", "None", '"a, b"', "7", "", ""]
    body = "\ufeffstudy,image\r\n" + "".join(f"{name},{text()}\r\n" for name in names)
    _, answer, _ = post(address, body.encode(), "text/csv")
    alone = ["single view" in row["warnings"] for row in answer["predictions"]]
    assert alone == [False, False, True, True, True, True, True, True]


def test_letters_beyond_ascii_name_studies_too(address):
    rows = [{"image": text(), "study": name} for name in ("Ärztin", "Ärztin", "骨", "\U0001f9b4")]
    body = json.dumps({"instances": rows}, ensure_ascii=False).encode()
    alone = ["single view" in row["warnings"] for row in post(address, body)[1]["predictions"]]
    assert alone == [False, False, True, True]


JSON_TYPE = "application/json"
BAD = {
    "broken json": (b'{"dataframe_records": [', JSON_TYPE, 400, "not valid JSON: Expecting value (line 1, column 24)"),
    "not utf-8": (b'{"inputs": "\xff"}', JSON_TYPE, 400, "no text in UTF-8"),
    "deep": (b"[" * 15_000, JSON_TYPE, 400, "the nesting too deep"),
    "long number": (b'{"inputs": 1' + b"0" * 5000 + b"}", JSON_TYPE, 400, "a number is too long"),
    "list": ([ROW], JSON_TYPE, 400, "must be a JSON object with one of the keys dataframe_records"),
    "empty": (b"", JSON_TYPE, 400, "The body is empty."),
    "two forms": ({"inputs": [ROW], "instances": [ROW]}, JSON_TYPE, 400, "exactly one of the keys"),
    "misspelt key": ({"dataframe_record": [ROW]}, JSON_TYPE, 400, "Did you mean 'dataframe_records'?"),
    "misspelt param": ({"inputs": [ROW], "params": {"explian": True}}, JSON_TYPE, 400, "Did you mean 'explain'?"),
    "param of another type": (
        {"inputs": [ROW], "params": {"threshold": "high"}},
        JSON_TYPE,
        400,
        "threshold must be a number.",
    ),
    "list as param": ({"inputs": [ROW], "params": {"threshold": [1]}}, JSON_TYPE, 400, "must be one value"),
    "params": ({"inputs": [ROW], "params": 3}, JSON_TYPE, 400, "'params' must hold an object"),
    "number as image": ({"inputs": [{"image": 7}]}, JSON_TYPE, 400, "Row 1: image must be text, not a number."),
    "records": ({"dataframe_records": {"image": "x"}}, JSON_TYPE, 400, "Expected a list of objects"),
    "ragged": ({"dataframe_split": {"columns": ["image"], "data": [["x", 2]]}}, JSON_TYPE, 400, "list of 1 values"),
    "twins": ({"dataframe_split": {"columns": ["image"] * 2, "data": []}}, JSON_TYPE, 400, "different names"),
    "split": ({"dataframe_split": [1]}, JSON_TYPE, 400, "the lists columns and data"),
    "lengths": ({"inputs": {"image": ["x"], "study": []}}, JSON_TYPE, 400, "different lengths"),
    "no rows": ({"dataframe_records": []}, JSON_TYPE, 400, "The request has no rows."),
    "no image": ({"dataframe_records": [{"picture": "x"}]}, JSON_TYPE, 400, "Row 1 has no image"),
    "many rows": ({"dataframe_records": [{"image": "x"}] * 65}, JSON_TYPE, 400, "The request has 65 rows; at most 64"),
    "bad row": ({"dataframe_records": [ROW, {"image": "%"}]}, JSON_TYPE, 400, "1 of 2 rows cannot be used"),
    "more columns": ({"inputs": [{**ROW, "sutdy": "x"}]}, JSON_TYPE, 400, "Row 1 has more than an image and a study"),
    "long study": ({"inputs": [{**ROW, "study": "x" * 1001}]}, JSON_TYPE, 400, "study is longer than 1,000 characters"),
    "tiny rows": (
        b'{"dataframe_records": [' + b"{}," * 15_000,
        JSON_TYPE,
        400,
        "more brackets and commas than 64 rows",
    ),
    "csv of many columns": (b"image," * 25_000, "text/csv", 400, "more brackets and commas than 64 rows"),
    "csv without a header": (f"{text()},s1\n".encode(), "text/csv", 400, "needs the header line image,study"),
    "csv of many rows": (b"image\n" + b"x\n" * 400_000, "text/csv", 400, "at most 64"),
    "csv not utf-8": (b"image\n\xff\n", "text/csv", 400, "The CSV is no text in UTF-8."),
    "ragged csv": (b"image\nx,y\n", "text/csv", 400, "no CSV table with a header line"),
    "broken csv": (b'image\n"x', "text/csv", 400, "no CSV table with a header line"),
    "csv without image": (b"picture\nx\n", "text/csv", 400, "image"),
    "wrong type": (b"x", "application/xml", 415, "The Content-Type is 'application/xml'; send application/json"),
    "parquet": (b"PAR1", "application/vnd.apache.parquet", 415, "send application/json or text/csv"),
    "charset": (b"{}", "application/json; charset=latin-1", 415, "may only add charset=utf-8"),
    "no type": (b"{}", None, 415, "The Content-Type is missing"),
    "half a letter": (b'{"inputs": [{"image": "", "study": "\\ud800"}]}', JSON_TYPE, 400, "Row 1: study holds half of"),
    "too large": (b"x" * 1_000_001, JSON_TYPE, 413, "The body is larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_gets_one_sentence(address, name):
    payload, kind, expected, words = BAD[name]
    status, body, headers = post(address, payload, kind)
    assert status == expected
    assert words in body["message"]
    assert set(body) == {"error_code", "message"}
    assert text()[:20] not in body["message"]
    assert not {"Traceback", "DataFrame'", "\n"} & set(body["message"].split(" "))
    assert headers["content-type"] == "application/json"


SENT = invalid_requests()


@pytest.mark.parametrize("name", SENT)
def test_what_people_send_by_mistake_is_refused_in_one_sentence(address, name):
    status, body, _ = post(address, SENT[name].body, SENT[name].content_type)
    assert status == (415 if name == "wrong content type" else 400)
    assert SENT[name].reason in body["message"]
    assert "Traceback" not in body["message"]
    assert "\n" not in body["message"]
    assert post(address, {"inputs": [ROW]})[0] == 200


def send_raw(address: str, lines: bytes) -> bytes:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=600) as connection:
        connection.sendall(lines)
        return connection.recv(4096)


HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_chunked_body_is_measured_while_it_comes(address):
    chunks = b"%x\r\n" % 600_000 + b" " * 600_000 + b"\r\n"
    assert b" 413 " in send_raw(address, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 2)


def test_a_body_that_does_not_arrive_is_not_waited_for(address):
    assert b" 408 " in send_raw(address, HEAD + b"Content-Length: 100\r\n\r\n{")


@pytest.mark.parametrize(("path", "status"), [("/models", 404), ("/about/", 404), ("/invocations", 405)])
def test_other_addresses_say_what_there_is_and_are_logged(address, caplog, path, status):
    with caplog.at_level(logging.INFO, "muralab.app"), pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}{path}", timeout=60)
    assert caught.value.code == status
    assert "there are GET /, GET /about and POST /invocations" in caught.value.read().decode()
    assert f"{caught.value.headers['x-request-id']} GET {path} {status}" in caplog.text


def test_a_path_is_logged_as_it_came(address, caplog):
    with caplog.at_level(logging.INFO, "muralab.app"), pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}/%1b[31m%c2%85x%e2%80%a8", timeout=60)
    assert "GET /%1b[31m%c2%85x%e2%80%a8 404" in caplog.text


def test_about_tells_the_model_and_the_disclaimer(address):
    with urllib.request.urlopen(f"{address}/about", timeout=60) as response:
        about = json.load(response)
    assert (about["part"], about["threshold"], about["max_rows"], about["max_bytes"]) == ("wrist", 0.6, 64, 10**6)
    assert about["disclaimer"].startswith("Not a medical device")


def test_a_token_guards_answers_but_not_the_page(model):
    with serving(build_app(model, {}, token=TOKEN)) as url:
        refused, body, _ = post(url, {"inputs": [ROW]})
        assert (refused, body["error_code"]) == (401, "UNAUTHENTICATED")
        assert post(url, {"inputs": [ROW]}, Authorization="Bearer wrong")[0] == 401
        assert post(url, {"inputs": [ROW]}, Authorization=f"Basic {TOKEN}")[0] == 401
        assert post(url, {"inputs": [ROW]}, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert post(url, {"inputs": [ROW]}, Authorization=f"bearer {TOKEN}")[0] == 200
        assert urllib.request.urlopen(f"{url}/", timeout=60).status == 200


def test_too_many_waiting_are_told_to_come_again(model):
    with serving(build_app(model, {}, limits=Limits(at_once=0, waiting=0))) as url:
        status, body, headers = post(url, {"inputs": [ROW]})
    assert (status, headers["retry-after"]) == (429, "5")
    assert "Too many requests" in body["message"]


def test_a_bug_is_a_500_without_a_traceback(model, monkeypatch, caplog):
    app = build_app(model, {})
    monkeypatch.setattr("muralab.app.build.read_request", lambda *_: 1 / 0)
    with serving(app) as url:
        status, body, _ = post(url, {"inputs": [ROW]})
    assert status == 500
    assert "its log has the details under" in body["message"]
    assert "ZeroDivisionError" in caplog.text


class Broken:
    """A model that fails, with the request in its words."""

    def __init__(self, model):
        self.metadata = model.metadata

    def predict(self, data, params=None):
        raise ValueError(f"cannot use {data['image'][0]}")


def test_a_failing_model_is_a_500_whose_log_says_where_but_not_what(model, caplog):
    with serving(build_app(Broken(model), {})) as url:
        status, body, _ = post(url, {"inputs": [ROW]})
    assert (status, body["error_code"]) == (500, "INTERNAL_ERROR")
    assert body["message"] == "The model failed on this request; the server's log says where."
    assert "ValueError" in caplog.text
    assert 'test_app.py", line' in caplog.text
    assert ROW["image"][:20] not in caplog.text


def test_the_log_names_requests_and_holds_no_pixels(address, caplog):
    with caplog.at_level(logging.INFO, "muralab.app"):
        _, _, headers = post(address, {"inputs": [ROW, {"image": "%%%"}]})
    assert f"{headers['x-request-id']} POST /invocations 400" in caplog.text
    assert ROW["image"][:24] not in caplog.text
    assert "%%%" not in caplog.text


def test_the_page_lets_nothing_run_but_itself(address):
    with urllib.request.urlopen(f"{address}/", timeout=60) as response:
        page, policy = response.read().decode(), response.headers["content-security-policy"]
    assert "Not a medical device" in page
    assert "http" not in page.replace("http-equiv", "")
    assert policy.startswith("default-src 'none'")
    assert policy.count("'sha256-") == 2
