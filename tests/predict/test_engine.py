"""Errors of a client whose server does not answer, refuses or serves something else."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from muralab.errors import DataError, ServerError, StoreError
from muralab.predict.engine import ServerEngine
from muralab.registry.load import load_registered

GOOD = {"predictions": [{"probability": 0.5}]}


@pytest.fixture
def serve():
    """A function that starts a server with a fixed answer and a list of statuses; returns its address and requests."""
    servers = []

    def start(status: int | list[int], body: object) -> tuple[str, list]:
        seen: list = []
        statuses = status if isinstance(status, list) else [status]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(200, b"\n")

            def do_POST(self):
                length = int(self.headers["Content-Length"])
                seen.append((self.path, self.headers.get("Authorization"), json.loads(self.rfile.read(length))))
                code = statuses[min(len(seen), len(statuses)) - 1]
                self.reply(code, body if isinstance(body, bytes) else json.dumps(body).encode())

            def reply(self, code, content):
                self.send_response(code)
                self.send_header("Retry-After", "3" if code == 429 else "soon")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_rows_and_params_reach_the_server_with_the_token(serve):
    url, seen = serve(200, GOOD)
    answers = ServerEngine(f"{url}/invocations", "secret").answer([{"image": "x"}], {"policy": "partial"})
    assert answers == GOOD["predictions"]
    payload = {"dataframe_records": [{"image": "x"}], "params": {"policy": "partial"}}
    assert seen == [("/invocations", "Bearer secret", payload)]


def test_a_server_that_does_not_answer_is_named():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ServerError, match=f"The server {url} does not answer"):
        ServerEngine(url)


def test_a_refused_token_ends_the_command(serve):
    url, _ = serve(401, {"message": "A bearer token is required."})
    with pytest.raises(ServerError, match="refuses access: A bearer token is required"):
        ServerEngine(url).answer([{"image": "x"}], {})


def test_the_error_of_a_refused_request_omits_mlflows_prefix(serve):
    url, _ = serve(400, {"message": "Failed to predict data '   image\n0  abc'. \nError: The request has no rows."})
    with pytest.raises(DataError, match=r"^The request has no rows\.$"):
        ServerEngine(url).answer([{"image": "x"}], {})


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("muralab.predict.engine.time.sleep", waited.append)
    return waited


def test_a_request_to_a_busy_server_is_repeated_after_the_time_it_names(serve, waits):
    url, seen = serve([429, 503, 504, 200], GOOD)
    assert ServerEngine(url).answer([{"image": "x"}], {}) == GOOD["predictions"]
    assert (len(seen), waits) == (4, [3.0, 2.0, 4.0])


def test_a_server_that_keeps_failing_ends_the_command(serve, waits):
    url, seen = serve(500, {"message": "The model failed."})
    with pytest.raises(ServerError, match=r"answered a request with 500 5 times: The model failed\. Check its log"):
        ServerEngine(url).answer([{"image": "x"}], {})
    assert (len(seen), len(waits)) == (5, 4)


@pytest.mark.parametrize("body", [{"predictions": []}, {"predictions": [3]}, {"hello": 1}, b"<html>"])
def test_another_kind_of_server_is_recognised(serve, body):
    url, _ = serve(200, body)
    with pytest.raises(ServerError, match="does not serve a model of this platform"):
        ServerEngine(url).answer([{"image": "x"}], {})


@pytest.mark.slow
def test_an_unknown_model_is_named_with_the_store(store_uri):
    with pytest.raises(StoreError, match=rf"The model models:/none@champion cannot be loaded .*{store_uri}"):
        load_registered("models:/none@champion", store_uri)
