"""Secrets in texts."""

from __future__ import annotations

import logging
import sys

import pytest

from muralab.redaction import install_redaction, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://ada:secret@lab/mlflow.", "postgresql://ada:***@lab/mlflow."),
        ("postgresql://ann:p@ss@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann:p@ss:w@rd@host:5432/db", "postgresql://ann:***@host:5432/db"),
        ("postgresql+psycopg2://ann:p/ss@host/db", "postgresql+psycopg2://ann:***@host/db"),
        ("mysql+pymysql://ann:1/2@host/db", "mysql+pymysql://ann:***@host/db"),
        ("http://ann:p#ss@host:5000", "http://ann:***@host:5000"),
        ("https://ann:p?ss@host/ml", "https://ann:***@host/ml"),
        ("postgresql://ann:p%40ss@[::1]:5432/db", "postgresql://ann:***@[::1]:5432/db"),
        ("redis://:secret@a, http://ada:other@b", "redis://:***@a, http://ada:***@b"),
        ("https://ghp_0123456789abcdefghij@git/lab", "https://***@git/lab"),
        ("postgresql://host/db?user=a&password=s3cret", "postgresql://host/db?user=a&password=***"),
        ("https://bucket/x?X-Amz-Signature=abc&X-Amz-Date=1", "https://bucket/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("abfs://lab@account/x?account_key=abc", "abfs://lab@account/x?account_key=***"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Da%3BPWD%3Ds", "mssql+pyodbc:///?odbc_connect=***"),
        ("(in 'http://ada:x@b')", "(in 'http://ada:***@b')"),
    ],
)
def test_secrets_of_addresses_are_masked(text: str, expected: str) -> None:
    assert redact(text, {}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://ada@lab:5000/a@b",
        "http://lab:5000/files/ann@example.org",
        "sqlite:////data/my runs/mlflow.db?timeout=5",
        "file:///data/a@b",
        "abfs://lab@account/x?credential_kind=environment",
        "models:/mura-wrist@champion",
        "no address: a@b, c://",
        "://",
        "",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert redact(text, {}) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('could not translate host name "ss@host" to address', 'could not translate host name "***" to address'),
        ("password p@ss is wrong", "password *** is wrong"),
        ("password p%40ss is wrong", "password *** is wrong"),
        ("bearer 0123token", "bearer ***"),
    ],
)
def test_secrets_of_the_environment_are_masked_wherever_they_stand(text: str, expected: str) -> None:
    environment = {"MLFLOW_TRACKING_URI": "postgresql://ann:p@ss@host/db", "MLFLOW_TRACKING_TOKEN": "0123token"}
    assert redact(text, environment) == expected


def test_a_password_that_is_a_word_is_masked_in_addresses_only() -> None:
    environment = {"MLFLOW_TRACKING_URI": "postgresql://mlflow:mlflow@db/mlflow"}
    text = "`mlflow db upgrade postgresql://mlflow:mlflow@db/mlflow`"
    assert redact(text, environment) == "`mlflow db upgrade postgresql://mlflow:***@db/mlflow`"


def test_log_records_and_tracebacks_are_redacted(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    try:
        install_redaction()
        install_redaction()
        logging.getLogger("lab").warning("cannot open %s", "postgresql://a:secret@b")
        error = ValueError("postgresql://a:secret@b")
        sys.excepthook(ValueError, error, None)
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["cannot open postgresql://a:***@b"]
    assert "ValueError: postgresql://a:***@b" in capsys.readouterr().err
