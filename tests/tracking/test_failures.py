"""What a failure means, and its remedy."""

from __future__ import annotations

import errno

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from muralab.errors import StoreError, StoreUnavailableError
from muralab.tracking import Store
from muralab.tracking.failures import (
    is_busy,
    is_temporary,
    proxy_note,
    remedy,
    shorten,
    status_of,
    store_error,
    store_errors,
)

URI = "http://lab:5000"


def http_error(status: int) -> requests.HTTPError:
    """What an upload raises."""
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} Client Error: <h1>refused</h1>", response=response)


def unexpected(status: int, endpoint: str = "/x") -> MlflowException:
    """What MLflow's client makes of an answer that is not JSON."""
    return MlflowException(f"API request to {endpoint} failed with error code {status} != 200. Response body: '<p>'")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class ClientError(Exception):
    """As botocore raises it."""

    response = {"ResponseMetadata": {"HTTPStatusCode": 403}}  # noqa: RUF012


class NoCredentialsError(Exception):
    """Likewise, without keys of S3."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (http_error(413), 413),
        (unexpected(413), 413),
        (unexpected(502), 502),
        (MlflowException("Max retries exceeded (Caused by ResponseError('too many 503 error responses'))"), 503),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "no"}), 403),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}), 404),
        (RestException({"kind": "Status", "code": 403}), 403),
        (RestException({"message": "Unauthorized"}), 401),
        (RestException({"message": "upstream"}), None),
        (ClientError("denied"), 403),
        (caused(RuntimeError("upload failed"), ClientError("denied")), 403),
        (MlflowException("refused"), None),
        (OSError("refused"), None),
    ],
    ids=repr,
)
def test_the_status_of_a_failure_is_found(error: Exception, status: int | None) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_these_statuses_are_temporary(status: int) -> None:
    assert is_temporary(http_error(status))
    assert is_temporary(unexpected(status))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 501])
def test_these_statuses_are_permanent(status: int) -> None:
    assert not is_temporary(http_error(status))
    assert not is_temporary(unexpected(status))


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (ConnectionError("refused"), True),
        (requests.ConnectionError("refused"), True),
        (OSError(errno.ENOSPC, "disk full"), True),
        (OSError(errno.EROFS, "read-only"), False),
        (MlflowException("busy"), True),
        (MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("attempt to write a readonly database"), False),
        (MlflowException("bad name", error_code=1000), False),  # INVALID_PARAMETER_VALUE
        (FileNotFoundError("absent"), False),
        (PermissionError("not yours"), False),
        (IsADirectoryError("folder"), False),
        (NotADirectoryError("file"), False),
        (ValueError("bug"), False),
        (caused(OSError("upload failed"), NoCredentialsError("no keys")), False),
        (StoreError("deleted experiment"), False),
        (caused(StoreError("could not find the run"), ConnectionError("refused")), True),
        (StoreUnavailableError("away"), True),
    ],
    ids=repr,
)
def test_only_failures_of_network_and_disk_are_temporary(error: Exception, temporary: bool) -> None:
    assert is_temporary(error) == temporary


@pytest.mark.parametrize(
    ("error", "busy"),
    [(unexpected(503), True), (http_error(429), True), (OSError("is locked"), True), (http_error(500), False)],
)
def test_some_failures_are_of_the_whole_store(error: Exception, busy: bool) -> None:
    assert is_busy(error) == busy


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            OSError("Detected out-of-date database schema (found version 451aebb31d03, but expected x)"),
            "mlflow db upgrade",
        ),
        (OSError("Detected out-of-date database schema (found version 0123newer, but"), "A newer MLflow than"),
        (OSError("Can't locate revision identified by '0123newer'"), "install that version here"),
        (ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2"), "pip install psycopg2-binary"),
        (ModuleNotFoundError("No module named 'MySQLdb'", name="MySQLdb"), "pip install mysqlclient"),
        (
            MlflowException("Model registry functionality is unavailable; got unsupported URI 'x'"),
            "starts with http://",
        ),
        (OSError("database is locked"), "Another process has locked the database"),
        (OSError("attempt to write a readonly database"), "make it writable"),
        (OSError("database or disk is full"), "free some space"),
        (http_error(401), "MLFLOW_TRACKING_TOKEN"),
        (OSError("error code 401"), "MLFLOW_TRACKING_TOKEN"),
        (http_error(403), "permission to edit the experiment"),
        (MlflowException("Invalid Host header - possible DNS rebinding attack detected"), "--allowed-hosts lab:5000"),
        (
            MlflowException("endpoint /api/2.0/mlflow/registered-models/set-tag error code 403"),
            "edit the registered model",
        ),
        (NoCredentialsError("Unable to locate credentials"), "set AWS_ACCESS_KEY_ID"),
        (ClientError("SignatureDoesNotMatch"), "Correct AWS_ACCESS_KEY_ID"),
        (ClientError("NoSuchBucket"), "Create the bucket"),
        (unexpected(500, "http://lab:5000/api/2.0/mlflow-artifacts/artifacts/1/a"), "its log names the reason"),
        (http_error(413), "client_max_body_size"),
        (
            MlflowException("The run abc must be in the 'active' state. Current state is deleted."),
            "runs restore --run-id abc",
        ),
        (MlflowException("The experiment 7 must be in the 'active' state."), "experiments restore --experiment-id 7"),
        (requests.exceptions.SSLError("certificate verify failed"), "MLFLOW_TRACKING_SERVER_CERT_PATH"),
        (OSError("connection refused"), "Check that the store is running"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_failure_has_its_remedy(error: Exception, advice: str) -> None:
    assert advice in remedy(URI, error)
    assert advice in str(store_error(Store(uri=URI), "open it", error))


def test_a_proxy_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://me:secret@proxy:3128")
    assert "http://me:***@proxy:3128" in proxy_note(URI)
    assert "NO_PROXY=lab." in remedy(URI, requests.exceptions.ProxyError("refused"))
    monkeypatch.setenv("no_proxy", "lab")
    assert proxy_note(URI) == ""


def test_a_failure_is_one_paragraph_without_passwords_and_markup() -> None:
    store = Store(uri="postgresql://ada:secret@lab/a")
    error = store_error(store, "start", ValueError("no\n <b>route</b> to x://b:key@c [SQL: insert (?)] [values]"))
    assert str(error).startswith(
        "The tracking store postgresql://ada:***@lab/a: could not start. no route to x://b:***@c (ValueError). "
    )


def test_a_long_reason_is_shortened() -> None:
    error = store_error(Store(uri=URI), "start", OSError("x" * 900))
    assert "x... [shortened: 900 characters] (OSError)." in str(error)


def test_a_message_is_not_wrapped_twice() -> None:
    assert str(store_error(Store(uri=URI), "start", StoreError("It is down."))) == "It is down."


def test_a_store_that_is_away_is_no_missing_run() -> None:
    assert isinstance(store_error(Store(uri=URI), "read", ConnectionError("refused")), StoreUnavailableError)
    assert type(store_error(Store(uri=URI), "read", http_error(404))) is StoreError


def test_errors_of_the_store_are_turned_into_messages_and_bugs_are_not() -> None:
    with pytest.raises(StoreError, match="could not register it"), store_errors(Store(uri=URI), "register it"):
        raise MlflowException("no")
    with pytest.raises(TypeError), store_errors(Store(uri=URI), "register it"):
        raise TypeError


def test_only_longer_texts_are_shortened() -> None:
    assert shorten("x" * 40, 40) == "x" * 40
    assert shorten("x" * 41, 40) == "x" * 10 + "... [shortened: 41 characters]"
