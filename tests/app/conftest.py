"""The app on loopback, in a thread, with a tiny network."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import onnx_file  # noqa: F401

TOKEN = "a-token-of-some-length"


def png(level: int | None = None) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels if level is None else np.full((64, 64), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def text(level: int | None = None) -> str:
    return base64.b64encode(png(level)).decode()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, onnx_file) -> Path:  # noqa: F811
    from muralab.registry.bundle import write_bundle
    from muralab.serving.config import ServingConfig

    folder = tmp_path_factory.mktemp("app") / "model"
    fitted = {"method": "slope and intercept", "prevalence": 0.3, "study_intercept": 0.1, "threshold": 0.6}
    write_bundle(folder, onnx_file, ServingConfig(image_size=32, part="wrist", synthetic=True, **fitted))
    return folder


@pytest.fixture(scope="session")
def model(model_folder):
    import mlflow.pyfunc

    before = [*sys.path]
    loaded = mlflow.pyfunc.load_model(str(model_folder))
    sys.path[:] = before  # otherwise processes started later would import the model's copies of our packages
    return loaded


@contextlib.contextmanager
def serving(app: object) -> Iterator[str]:
    """Serve an ASGI app from a thread; yields its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def address(model, model_folder) -> Iterator[str]:
    """An app without a token and with a body limit of 1 MB."""
    from muralab.app.build import Limits, build_app
    from muralab.commands.app import read_about

    with serving(build_app(model, read_about(model_folder), limits=Limits(max_bytes=10**6, body_s=2.0))) as url:
        yield url


def post(
    address: str, payload: object, kind: str | None = "application/json", **headers: str
) -> tuple[int, dict, dict]:
    """Status, body and headers; with kind=None, no Content-Type is sent."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": kind or "", **headers})
    if kind is None:
        import http.client

        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=150)
        connection.request("POST", "/invocations", body)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), dict(response.headers)
    try:
        with urllib.request.urlopen(request, timeout=150) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), dict(error.headers)
