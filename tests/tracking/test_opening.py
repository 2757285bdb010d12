"""Opening a store: what is refused before any work begins, and with which advice."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from muralab.errors import StoreError, StoreUnavailableError
from muralab.tracking import Store, open_store
from tests.tracking.conftest import start_python

VARIABLES = (
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_TOKEN",
    "http_proxy",
    "HTTP_PROXY",
    "no_proxy",
    "NO_PROXY",
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def serving(version: str = "3.17.2", *, status: int = 200, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that states its version and has no experiments; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(status, version if self.path == "/version" else "{}")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.answer(status, json.dumps({"experiments": []}) if status == 200 else "<h1>no</h1>")

        def answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "lab.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=lab"
    command = ["openssl", *options.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(path), "-out", f"{path}.crt"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl")
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def tls_of(certificate: Path, *, asks_for_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if asks_for_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    return context


# Local databases


def test_a_folder_of_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder of files.*sqlite:///mlflow.db"):
        open_store(str(tmp_path / "mlruns"))


def test_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"\1" * 5000)
    with pytest.raises(StoreError, match=r"could not open it\. .*\((DatabaseError|MlflowException)\)"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_an_empty_file_becomes_a_database_without_noise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").touch()
    with caplog.at_level(logging.INFO):
        open_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["mlflow.db"]
    assert [record for record in caplog.records if record.name.startswith("alembic")] == []


@pytest.mark.slow
def test_two_processes_may_open_an_empty_database_at_once(tmp_path: Path) -> None:
    code = f"from muralab.tracking import open_store; open_store('sqlite:///{tmp_path}/mlflow.db')"
    processes = [start_python(code) for _ in range(2)]
    assert [process.wait(600) for process in processes] == [0, 0]


def test_a_local_store_is_opened_within_two_seconds(local: Store) -> None:
    start_s = time.process_time()
    open_store(local.uri)
    assert time.process_time() - start_s < 2


# Servers


def test_a_server_that_is_down_is_reported_at_once() -> None:
    start_s = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"http://127.0.0.1:9 does not answer \(Connect.*mlflow server"):
        open_store("http://127.0.0.1:9", timeout_s=5)
    assert time.monotonic() - start_s < 30  # MLflow itself retries for minutes


def test_a_server_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StoreError, match="does not answer"):
        open_store(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)


@pytest.mark.parametrize("version", ["3.17.2", "4.0.0rc1", "<html>a page</html>"])
def test_a_server_of_a_known_or_unknown_version_is_accepted(version: str) -> None:
    with serving(version) as uri:
        assert open_store(uri).uri == uri


@pytest.mark.parametrize("version", ["2.22.0", "1.30.1"])
def test_an_old_server_is_refused_before_anything_is_trained(version: str) -> None:
    with serving(version) as uri, pytest.raises(StoreError, match=rf"runs MLflow {version}.*Upgrade the server"):
        open_store(uri)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (503, r"does not answer \(status 503\)"),
        (401, "MLFLOW_TRACKING_TOKEN"),
        (403, "permission to edit the experiment"),
        (404, "Check that the store is running"),
    ],
)
def test_each_refusal_of_a_server_has_its_advice(status: int, message: str) -> None:
    with serving(status=status) as uri, pytest.raises(StoreError, match=message):
        open_store(uri)


def test_a_certificate_of_an_own_authority_is_named_with_the_variables(certificate: Path) -> None:
    with serving(tls=tls_of(certificate)) as uri, pytest.raises(StoreError, match="SERVER_CERT_PATH to the file"):
        open_store(uri)


@pytest.mark.parametrize(("name", "given"), [("INSECURE_TLS", lambda _: "true"), ("SERVER_CERT_PATH", str)])
def test_the_check_honours_what_mlflow_honours(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: Callable[[Path], str]
) -> None:
    monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", given(certificate))
    with serving(tls=tls_of(certificate)) as uri:
        assert open_store(uri).uri == uri


def test_a_clients_certificate_is_shown(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    with serving(tls=tls_of(certificate, asks_for_client=True)) as uri:
        with pytest.raises(StoreError, match=r"cannot be reached|does not answer"):
            open_store(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate))
        assert open_store(uri).uri == uri


def test_a_certificate_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/absent/ca.pem")
    with pytest.raises(StoreError, match=r"/absent/ca\.pem"):
        open_store("https://127.0.0.1:9")


def test_a_proxy_in_between_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    with pytest.raises(StoreError, match=r"http://me:\*\*\*@127.0.0.1:9 .*NO_PROXY=lab\.invalid") as caught:
        open_store("http://lab.invalid:5000", timeout_s=5)
    assert "secret" not in str(caught.value)


# Databases elsewhere, registries


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mssql+pyodbc://ann:p@ss@lab/db", r"pip install pyodbc"),
        ("mysql+nodriver://lab/db", r"starts with http://"),
        ("ftp://lab/db", r"starts with http://"),
    ],
)
def test_a_store_that_needs_a_driver_says_which(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_store(uri)
    assert "ss@" not in str(caught.value)


def test_a_database_that_does_not_answer_is_no_server_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "client", property(lambda _: threading.Event().wait(5)))
    with pytest.raises(StoreUnavailableError, match=r"no response within 0.1 s.*database runs and accepts connections"):
        open_store("postgresql://lab/db", timeout_s=0.1)


def test_a_registry_that_is_down_is_named_by_its_variable(local: Store) -> None:
    with pytest.raises(StoreError, match=r"MLFLOW_REGISTRY_URI: The tracking server http://127.0.0.1:9 does not"):
        open_store(local.uri, registry_uri="http://127.0.0.1:9", timeout_s=5)
