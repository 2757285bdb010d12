"""The process that runs Ray, as the command that starts it sees it: started, listened to, ended with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from muralab.scratch import lock_folder, own_scratch, remove_folder, short_folder

PROGRAM = "from muralab.tune.ray_process import main; main()"
SOCKET_PATH_BYTES = 64
"""What Ray adds to its folder for the longest path of a socket: /session_<time>_<pid>/sockets/plasma_store."""
END_WAIT_S = 10.0
OF_THE_STORE = ("MLFLOW_", "PGPASS")
"""What the names of variables begin with that hold the store's address and passwords."""


class RayProcess:
    """A running `ray_process`; a context manager that ends it in every case."""

    def __init__(self, job: Mapping[str, Any], log: Path) -> None:
        """Start the process.

        Args:
            job: what it runs.
            log: the file that its output is appended to; its folder is created.

        Raises:
            SettingsError: no temporary folder has a path that is short enough for Ray's sockets.
        """
        self.folder = short_folder(SOCKET_PATH_BYTES)
        self._lock = lock_folder(self.folder)
        self._read, write = os.pipe()
        self._pending = b""
        self._is_removed = False
        self.has_ended = False
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env={**ray_environment(), "MURALAB_EVENTS_FD": str(write)},
                    pass_fds=(write,),
                    start_new_session=True,  # Ctrl-C is answered by the command, which then ends this process
                )
        finally:
            os.close(write)
        leftovers = [str(folder) for folder in (self.folder, own_scratch()) if folder is not None]
        text = json.dumps({**job, "ray_folder": str(self.folder), "leftovers": leftovers})
        with contextlib.suppress(BrokenPipeError):  # it died at once; `events` reports that
            assert self._process.stdin is not None
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_WAIT_S)
        self.end()

    def events(self, wait_s: float) -> Iterator[dict[str, Any]]:
        """The events that have arrived, after waiting for one; `has_ended` is set when there will be no more."""
        if not select.select([self._read], [], [], wait_s)[0]:
            return
        received = os.read(self._read, 1 << 16)
        self.has_ended = not received
        *lines, self._pending = (self._pending + received).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def end(self) -> None:
        """Kill the process and everything that it started, and remove its folder; harmless the second time."""
        if self._is_removed:
            return
        self._is_removed = True
        tree: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            tree = [process, *process.children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(tree, timeout=END_WAIT_S)
        self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._read)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        remove_folder(self.folder)
        self._lock.release()


def check_folder() -> None:
    """Find out whether Ray's sockets have a place, before there is any work to lose.

    Raises:
        SettingsError: no temporary folder has a path that is short enough.
    """
    remove_folder(short_folder(SOCKET_PATH_BYTES))


def ray_environment() -> dict[str, str]:
    """The environment of processes that use Ray, and of the trials': they need neither the store nor its passwords."""
    roots = [str(folder) for folder in Path(__file__).resolve().parents[2:4]]
    known = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in roots]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OF_THE_STORE)}
    return {**kept, "PYTHONPATH": os.pathsep.join([*roots, *known])}
