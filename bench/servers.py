"""Servers of a model in processes of their own: `mlflow models serve` and `muralab app`, on loopback."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = ANSWER_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    address: str
    ready_s: float
    """From the start of its process to its first answer."""
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where requests are sent to."""
        return f"{self.address}/invocations"

    def cpu_s(self) -> float:
        """CPU time of its processes."""
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(time.user + time.system for time in times))

    def memory_mib(self) -> float:
        """Resident memory of its processes; 0 once it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return float(sum(process.memory_info().rss for process in self._processes())) / 2**20
        return 0.0

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


def serve(
    model: Path | str, body: bytes, log: Path, *, cores: int | None = None
) -> contextlib.AbstractContextManager[Server]:
    """Start `mlflow models serve` and stop it at the end of the block.

    Args:
        model: the model's folder or registry URI.
        body: a valid request; the server is ready once it has answered it.
        log: file for its output.
        cores: that it may use; None: as many as this process.
    """
    command = ["mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    return _serve(command, {}, body, log, None if cores is None else functools.partial(_use_cores, cores))


def serve_app(model: Path | str, body: bytes, log: Path) -> contextlib.AbstractContextManager[Server]:
    """Start `muralab app` and stop it at the end of the block; arguments as for `serve`."""
    sources = os.pathsep.join((str(ROOT / "platform"), str(ROOT)))
    return _serve(["muralab", "app", "--model", str(model)], {"PYTHONPATH": sources}, body, log)


def _use_cores(n: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])


@contextlib.contextmanager
def _serve(
    command: list[str], extra: dict[str, str], body: bytes, log: Path, prepare: Callable[[], None] | None = None
) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # MLflow calls uvicorn
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment | extra, stdout=output, stderr=output, start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", body, process, log)
        yield Server(f"http://127.0.0.1:{port}", time.perf_counter() - started, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def post(session: Any, url: str, body: bytes, content_type: str = "application/json") -> dict[str, Any]:
    """Send a request and return its answer.

    Raises:
        RuntimeError: the status is not 200.
    """
    response = session.post(url, data=body, headers={"Content-Type": content_type}, timeout=ANSWER_TIMEOUT_S)
    if response.status_code != 200:
        raise RuntimeError(f"{url} answered {response.status_code}: {response.text[:300]}")
    answer: dict[str, Any] = response.json()
    return answer


def _wait_until_ready(address: str, body: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.perf_counter() + START_TIMEOUT_S
    while time.perf_counter() < end:
        if process.poll() is not None:
            raise RuntimeError(f"The server exited with code {process.returncode}:\n{log.read_text()[-2000:]}")
        with contextlib.suppress(requests.ConnectionError):
            requests.get(f"{address}/ping", timeout=5)
            post(requests, f"{address}/invocations", body)
            return
        time.sleep(0.02)
    raise RuntimeError(f"The server did not answer within {START_TIMEOUT_S:g} s:\n{log.read_text()[-2000:]}")
