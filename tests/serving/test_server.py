"""MLflow's own server on the served model: every form of request, and the answers to invalid ones."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from muralab.serving.config import ServingConfig
from tests.fixtures.payloads import base64_text, invalid_requests, request_body, valid_files
from tests.fixtures.strategies import MANY, WELL_FORMED


def png(level: int = 180) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64), level, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory, onnx_file):
    """MLflow's own server on a new bundle; yields a function that posts to it."""
    from muralab.registry.bundle import write_bundle

    folder, port = tmp_path_factory.mktemp("served"), free_port()
    write_bundle(folder / "model", onnx_file, ServingConfig(image_size=32))
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "model"), "--env-manager", "local"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # MLflow calls uvicorn
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until_ready(port, process, folder / "log.txt")
        yield lambda payload, kind="application/json": post(port, payload, kind)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=150)


def wait_until_ready(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(3000):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2)
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(log.read_text())


def post(port: int, payload: object, kind: str) -> tuple[int, dict]:
    body = payload.encode() if isinstance(payload, str) else payload
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=150) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


ROW = {"image": png(), "study": "s1"}
FORMS = {
    "dataframe_records": {"dataframe_records": [ROW, ROW]},
    "dataframe_split": {"dataframe_split": {"columns": ["image", "study"], "data": [[png(), "s1"]] * 2}},
    "inputs": {"inputs": {"image": [png()] * 2, "study": ["s1"] * 2}},
    "instances": {"instances": [ROW, ROW]},
    "without study": {"dataframe_records": [{"image": png()}] * 2},
    "inputs as records": {"inputs": [ROW, ROW]},
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_server_accepts_every_form(server, form):
    status, body = server(FORMS[form])
    assert status == 200, body
    assert len(body["predictions"]) == 2
    assert body["predictions"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-8 * (180 / 255 - 0.5))), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("header", ["image,study\n{0},s1\n{0},7\n", "image\n{0}\n{0}\n"])
def test_server_accepts_csv(server, header):
    status, body = server(header.format(png()), "text/csv")
    assert (status, len(body["predictions"])) == (200, 2)


@pytest.mark.slow
def test_server_uses_params(server):
    payload = {
        "dataframe_records": [ROW, {"image": "%"}],
        "params": {"policy": "partial", "explain": True, "threshold": 0.0},
    }
    status, body = server(payload)
    assert status == 200
    assert body["predictions"][0]["abnormal"] is True
    assert body["predictions"][0]["heatmap"]
    assert body["predictions"][1]["error"] == "not base64 text"
    assert body["predictions"][1]["heatmap"] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", valid_files())
def test_server_reads_every_file_format(server, name):
    found, plain = (server(request_body(base64_text(valid_files()[kind]))) for kind in (name, "png"))
    tolerance = 0.2 if name == "png one bit" else 0.05 if "jpeg" in name else 1e-6
    assert found[1]["predictions"][0]["probability"] == pytest.approx(
        plain[1]["predictions"][0]["probability"], abs=tolerance
    )


INVALID = {name: request for name, request in invalid_requests().items() if request.reaches_model}


@pytest.mark.slow
@pytest.mark.parametrize("name", INVALID)
def test_server_refuses_with_400_and_no_stack_trace(server, name):
    status, body = server(INVALID[name].body, INVALID[name].content_type)
    assert status == 400
    assert INVALID[name].reason in body["message"]
    assert "Traceback" not in json.dumps(body)
    assert server(FORMS["instances"])[0] == 200


@pytest.mark.slow
@MANY
@given(body=WELL_FORMED)
def test_server_never_fails_on_arbitrary_requests_that_reach_the_model(server, body):
    assert server(body)[0] in (200, 400)
