"""Sweeps whose tracking server is away for a minute, in each way and at each moment, and once for ten minutes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from muralab.tracking import Store, open_store
from tests.fixtures.flaky_proxy import FlakyProxy, always, flaky_proxy
from tests.fixtures.record import differences, record_of
from tests.fixtures.runs import find_runs
from tests.tune.conftest import Bench, finish, wait_until

pytestmark = pytest.mark.long
MINUTE_S, TEN_MINUTES_S = 60.0, 600.0
SCHEDULE = {"epochs": "1+60", "recipes": "tiny_lab.small_net", "max_concurrent": 1}


@dataclass
class Server:
    """A tracking server that can be stopped, hung and started again on its port."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                   "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
                   "--artifacts-destination", f"{self.folder}/artifacts"]  # fmt: skip
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(30)


@pytest.fixture
def server(empty_database: Path, tmp_path: Path) -> Iterator[Server]:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        one = Server(tmp_path, free.getsockname()[1])
    one.start()
    yield one
    one.signal(signal.SIGCONT)
    one.stop()


def stopped(server: Server, proxy: FlakyProxy, seconds: float) -> None:
    server.stop()
    time.sleep(seconds)
    server.start()


def hung(server: Server, proxy: FlakyProxy, seconds: float) -> None:
    server.signal(signal.SIGSTOP)
    time.sleep(seconds)
    server.signal(signal.SIGCONT)


def refusing(server: Server, proxy: FlakyProxy, seconds: float) -> None:
    with proxy.failing(always(503)):
        time.sleep(seconds)


Disturb = Callable[[Server, FlakyProxy, float], None]


@pytest.fixture(autouse=True)
def _short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def run_sweep(bench: Bench, server: Server, disturb: Disturb | None, moment: str, seconds: float) -> dict[str, Any]:
    """The record of a sweep over a proxy before the server."""
    wait_for(server)
    with flaky_proxy(server.uri) as proxy:
        cache = server.folder / "cache"
        own = replace(bench, store=Store(uri=proxy.uri), cache=cache)
        process = own.start(*own.tune(**SCHEDULE))
        if disturb is not None:
            wait_until(lambda: reached(moment, proxy, cache), process)
            disturb(server, proxy, seconds)
        output = finish(process, 1500)
    assert process.returncode == 0, output
    wait_for(server)
    store = open_store(server.uri)
    versions = [(one.version, one.status) for one in store.client.search_model_versions("name='mura-wrist'")]
    models = store.client.search_logged_models([find_runs(store)[0].experiment_id])
    return {**record_of(store, find_runs(store)), "versions": versions, "models": [str(one.status) for one in models]}


def reached(moment: str, proxy: FlakyProxy, cache: Path) -> bool:
    """In the middle: epochs have been logged. At the end: the last trial has, and its weights are uploaded."""
    if moment == "middle":
        return sum("log-batch" in one.path for one in list(proxy.seen)) > 8
    return any("weights.safetensors" in one.path for one in list(proxy.seen))


def wait_for(server: Server) -> None:
    deadline_s = time.monotonic() + 120
    while True:
        try:
            open_store(server.uri, timeout_s=5)
            return
        except Exception:
            assert time.monotonic() < deadline_s
            time.sleep(0.5)


_undisturbed: dict[str, Any] = {}


@pytest.fixture
def undisturbed(bench: Bench, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a sweep that nothing disturbs; made once."""
    if not _undisturbed:
        folder = tmp_path_factory.mktemp("calm")
        shutil.copy(empty_database, folder / "mlflow.db")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            calm = Server(folder, free.getsockname()[1])
        calm.start()
        try:
            _undisturbed.update(run_sweep(bench, calm, None, "", 0.0))
        finally:
            calm.stop()
    return _undisturbed


@pytest.mark.parametrize("moment", ["middle", "end"])
@pytest.mark.parametrize("disturb", [stopped, hung, refusing], ids=lambda disturb: disturb.__name__)
def test_a_minute_without_the_store_leaves_no_trace(
    bench: Bench, server: Server, undisturbed: dict[str, Any], disturb: Disturb, moment: str
) -> None:
    assert differences(run_sweep(bench, server, disturb, moment, MINUTE_S), undisturbed) == []


def test_ten_minutes_without_the_store_leave_no_trace(
    bench: Bench, server: Server, undisturbed: dict[str, Any]
) -> None:
    assert differences(run_sweep(bench, server, stopped, "middle", TEN_MINUTES_S), undisturbed) == []
