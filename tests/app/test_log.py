"""What is written to the log while the app serves."""

from __future__ import annotations

import logging

import pytest
from starlette.requests import Request
from starlette.responses import Response

from muralab.app.log import describe, log_request, silence


@pytest.mark.parametrize("name", ["mlflow.models.utils", "mlflow.pyfunc.scoring_server", "mlflow.later", "pydicom"])
def test_loggers_that_quote_a_request_are_silenced(name):
    before = {known: logging.getLogger(known).level for known in logging.root.manager.loggerDict}
    silence()
    assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
    for known, level in before.items():
        logging.getLogger(known).setLevel(level)


def test_an_error_is_described_by_its_traceback_and_causes_without_messages():
    try:
        try:
            int("secret")
        except ValueError as cause:
            raise KeyError("secret too") from cause
    except KeyError as error:
        found = describe(error)
    assert [name in found for name in ("KeyError", "ValueError", "test_log.py")] == [True] * 3
    assert "secret" not in found.replace('int("secret")', "").replace('KeyError("secret too")', "")


def test_a_line_holds_no_line_break_or_terminal_control_character(caplog):
    scope = {
        "type": "http",
        "method": "GET",
        "headers": [],
        "raw_path": b"/%1b\x1b[31m\x85",
        "client": ("a\x85\u2028b", 1),
    }
    with caplog.at_level(logging.INFO, "muralab.app"):
        log_request(Request(scope), Response(), 0.0, "n")
    assert "GET /%1b\\x1b[31m\\x85 200" in caplog.messages[0]
    assert caplog.messages[0].endswith(r"from a\x85\u2028b")
