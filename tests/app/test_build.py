"""The app over HTTP: answers, errors, limits, token, log and page."""

from __future__ import annotations

import json
import logging
import socket
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from muralab.app.build import build_app
from muralab.app.limits import Limits
from tests.app.conftest import TOKEN, post, serving, text
from tests.fixtures.payloads import invalid_requests

ROW = {"image": text(180), "study": "s1"}
ROWS = [ROW, {"image": text(), "study": None}, ROW]
COLUMNS = {name: [row[name] for row in ROWS] for name in ("image", "study")}
SPLIT = {"columns": ["image", "study"], "data": [[*row.values()] for row in ROWS], "index": [4, "b", "c"]}


@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ("dataframe_records", ROWS),
        ("dataframe_split", SPLIT),
        ("inputs", ROWS),
        ("inputs", COLUMNS),
        ("instances", ROWS),
    ],
)
def test_every_form_gives_the_same_studies_and_uses_the_parameters(address, form, rows):
    status, body, _ = post(address, {form: rows, "params": {"threshold": 0.25, "explain": True}})
    assert status == 200, body
    assert ["single view" in row["warnings"] for row in body["predictions"]] == [False, True, False]
    assert {row["threshold"] for row in body["predictions"]} == {0.25}
    assert all(row["heatmap"] for row in body["predictions"])


@pytest.mark.parametrize("form", ["dataframe_records", "inputs", "instances"])
def test_rows_may_mix_named_null_and_omitted_studies(address, form):
    status, body, _ = post(address, {form: [ROW, {"image": text(), "study": None}, {"image": text()}]})
    assert status == 200, body
    assert all("single view" in row["warnings"] for row in body["predictions"])


def test_csv_gives_the_same_studies_as_json(address):
    rows = "".join(f"{text()},{study}\n" for study in ("s1", "", "s1", "NA"))
    status, body, _ = post(address, f"image,study\n{rows}".encode(), "text/csv; charset=utf-8")
    assert status == 200, body
    assert ["single view" in row["warnings"] for row in body["predictions"]] == [False, True, False, True]


@pytest.mark.parametrize("form", ["dataframe_records", "inputs", "instances"])
def test_a_null_image_is_reported_with_its_row(address, form):
    status, body, _ = post(address, {form: [{"image": None}, ROW]})
    assert status == 400
    assert "row 1: no image (null)" in body["message"]


def test_studies_may_have_names_outside_ascii(address):
    rows = [{"image": text(), "study": name} for name in ("Ärztin", "Ärztin", "骨", "\U0001f9b4")]
    body = json.dumps({"instances": rows}, ensure_ascii=False).encode()
    alone = ["single view" in row["warnings"] for row in post(address, body)[1]["predictions"]]
    assert alone == [False, False, True, True]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"dataframe_records": [', "application/json", 400),
        (b"<x/>", "application/xml", 415),
        (b"{}", None, 415),
        (b" " * 1_000_001, "application/json", 413),
    ],
)
def test_an_error_is_a_json_object_with_a_code_and_one_sentence(address, body, content_type, status):
    found, answer, headers = post(address, body, content_type)
    assert found == status
    assert set(answer) == {"error_code", "message"}
    assert answer["message"].endswith(".")
    assert headers["content-type"] == "application/json"


INVALID = invalid_requests()


@pytest.mark.parametrize("name", INVALID)
def test_common_mistakes_are_refused_in_one_sentence_and_leave_the_app_working(address, name):
    status, body, _ = post(address, INVALID[name].body, INVALID[name].content_type)
    assert status == (415 if name == "wrong content type" else 400)
    assert INVALID[name].reason in body["message"]
    assert "Traceback" not in body["message"]
    assert "\n" not in body["message"]
    assert post(address, {"inputs": [ROW]})[0] == 200


def send_raw(address: str, lines: bytes) -> bytes:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=600) as connection:
        connection.sendall(lines)
        return connection.recv(4096)


HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_chunked_body_is_measured_while_it_arrives(address):
    chunks = b"%x\r\n" % 600_000 + b" " * 600_000 + b"\r\n"
    assert b" 413 " in send_raw(address, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 2)


def test_a_body_that_does_not_arrive_is_a_408(address):
    assert b" 408 " in send_raw(address, HEAD + b"Content-Length: 100\r\n\r\n{")


@pytest.mark.parametrize(("path", "status"), [("/models", 404), ("/about/", 404), ("/invocations", 405)])
def test_an_unknown_route_lists_the_known_ones_and_is_logged(address, caplog, path, status):
    with caplog.at_level(logging.INFO, "muralab.app"), pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}{path}", timeout=60)
    assert caught.value.code == status
    assert "available are GET /, GET /about and POST /invocations" in caught.value.read().decode()
    assert f"{caught.value.headers['x-request-id']} GET {path} {status}" in caplog.text


def test_a_path_is_logged_undecoded(address, caplog):
    with caplog.at_level(logging.INFO, "muralab.app"), pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}/%1b[31m%c2%85x%e2%80%a8", timeout=60)
    assert "GET /%1b[31m%c2%85x%e2%80%a8 404" in caplog.text


def test_about_describes_the_model_and_holds_the_disclaimer(address):
    with urllib.request.urlopen(f"{address}/about", timeout=60) as response:
        about = json.load(response)
    assert (about["part"], about["threshold"], about["max_rows"], about["max_bytes"]) == ("wrist", 0.6, 64, 10**6)
    assert (about["method"], about["prevalence"]) == ("slope and intercept", 0.3)
    assert about["disclaimer"].startswith("Not a medical device")


def test_a_prevalence_shifts_the_answer(address):
    (common,), (rare,) = (post(address, {"inputs": [ROW], "params": params})[1]["predictions"]
                          for params in ({}, {"prevalence": 0.01}))  # fmt: skip
    assert rare["study_probability"] < common["study_probability"]
    assert (rare["prevalence"], common["prevalence"]) == (0.01, 0.3)
    assert rare["abnormal"] == common["abnormal"]


def test_a_token_protects_answers_but_not_the_page(model):
    with serving(build_app(model, {}, token=TOKEN)) as url:
        refused, body, _ = post(url, {"inputs": [ROW]})
        assert (refused, body["error_code"]) == (401, "UNAUTHENTICATED")
        assert post(url, {"inputs": [ROW]}, Authorization="Bearer wrong")[0] == 401
        assert post(url, {"inputs": [ROW]}, Authorization=f"Basic {TOKEN}")[0] == 401
        assert post(url, {"inputs": [ROW]}, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert post(url, {"inputs": [ROW]}, Authorization=f"bearer {TOKEN}")[0] == 200
        assert urllib.request.urlopen(f"{url}/", timeout=60).status == 200


def test_too_many_requests_get_a_429_with_a_time_to_retry(model):
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
    assert "in its log" in body["message"]
    assert "ZeroDivisionError" in caplog.text


def test_a_slow_model_is_a_504(model):
    answered = threading.Event()
    slow = SimpleNamespace(metadata=model.metadata, predict=lambda *_, **__: answered.wait(60))
    with serving(build_app(slow, {}, limits=Limits(answer_s=0.05))) as url:
        status, body, _ = post(url, {"inputs": [ROW]})
        answered.set()
    assert (status, body["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert body["message"] == "The model did not answer within 0.05 s."


def test_the_log_identifies_requests_and_holds_no_pixels(address, caplog):
    with caplog.at_level(logging.INFO, "muralab.app"):
        _, _, headers = post(address, {"inputs": [ROW, {"image": "%%%"}]})
    assert f"{headers['x-request-id']} POST /invocations 400" in caplog.text
    assert ROW["image"][:24] not in caplog.text
    assert "%%%" not in caplog.text


def test_the_page_allows_no_other_script_or_style(address):
    with urllib.request.urlopen(f"{address}/", timeout=60) as response:
        page, policy = response.read().decode(), response.headers["content-security-policy"]
    assert "Not a medical device" in page
    assert "http" not in page.replace("http-equiv", "")
    assert policy.startswith("default-src 'none'")
    assert policy.count("'sha256-") == 2
