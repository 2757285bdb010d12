"""Ray nodes on the loopback addresses 127.0.0.2, .3, ... of this machine, each with folders of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

ATTEMPTS = 6
READY = "This command will now block forever"
TOKEN = "0123456789abcdef0123456789abcdef"


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


class RayNodes:
    """A cluster whose nodes have one core each; a context manager that ends its own processes and no others."""

    def __init__(self, environment: Mapping[str, str], *, cores: int = 1) -> None:
        """Start nothing yet; `environment` is what every node has beside the cluster's token."""
        self.folder = Path(tempfile.mkdtemp(prefix="mura-", dir="/tmp"))  # short, for the paths of sockets
        self.port = free_port("127.0.0.2")
        self.cores = cores
        self._environment = dict(environment)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> RayNodes:
        return self

    def __exit__(self, *_: object) -> None:
        for address in list(self.processes):
            self.kill(address)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Of the head."""
        return f"127.0.0.2:{self.port}"

    def cache(self, address: str) -> Path:
        """The cache folder of a node."""
        return self.folder / address / "cache" / "muralab"

    def start(self, address: str, **environment: str) -> None:
        """Start a node, the first one as head, and wait until it is ready; with some more variables."""
        own = self.folder / address
        (own / "tmp").mkdir(parents=True)
        role = [f"--address={self.address}"]
        if not self.processes:
            role = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder / 'ray'}"]
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *role,
            f"--node-ip-address={address}", f"--num-cpus={self.cores}", f"--memory={self.cores * 2_400_000_000}",
            "--object-store-memory=80000000",
        ]  # fmt: skip
        for _ in range(ATTEMPTS):
            with (own / "log").open("wb") as log:
                self.processes[address] = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    cwd=own,
                    env=self._environment_of(own) | environment,
                    start_new_session=True,
                )
            if self._is_ready(address, own / "log"):
                return
            self.kill(address)
        raise AssertionError((own / "log").read_text())

    def _is_ready(self, address: str, log: Path) -> bool:
        """Wait for a node; False if Ray gave up, which it does after 30 s of a busy machine."""
        while READY not in log.read_text():
            if self.processes[address].poll() is not None:
                return False
            time.sleep(0.2)
        return True

    def _environment_of(self, own: Path) -> dict[str, str]:
        unset = ("PYTHONPATH", "RAY_ADDRESS", "COVERAGE_PROCESS_START")
        kept = {key: value for key, value in os.environ.items() if key not in unset and not key.startswith("MLFLOW_")}
        return (
            kept
            | self._environment
            | {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": TOKEN,
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_worker_niceness": "0",  # the default of 15 starves trials on a machine that does other work
                "XDG_CACHE_HOME": str(own / "cache"),
                "TMPDIR": str(own / "tmp"),
                "OMP_NUM_THREADS": "1",
            }
        )

    def kill(self, address: str) -> None:
        """Kill everything of a node at once, as if its power was cut."""
        process = self.processes.pop(address)
        tree = self._send(process, signal.SIGKILL)
        psutil.wait_procs(tree, timeout=30)
        process.wait(30)

    def cut_off(self, address: str) -> None:
        """Stop everything of a node: it answers nobody, as if its network cable was pulled, and keeps what it knows."""
        self._send(self.processes[address], signal.SIGSTOP)

    def reconnect(self, address: str) -> None:
        """Let everything of a node go on."""
        self._send(self.processes[address], signal.SIGCONT)

    def _send(self, process: subprocess.Popen[bytes], number: int) -> list[psutil.Process]:
        """Send a signal to a node's processes; returns those that it had."""
        tree: list[psutil.Process] = []
        if process.poll() is None:
            parent = psutil.Process(process.pid)
            tree = [parent, *parent.children(recursive=True)]
        for one in tree:
            try:
                one.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        return tree
