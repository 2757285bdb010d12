"""The process that runs Ray, as the command that starts it sees it: started, listened to, ended with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from muralab.config.resources import count_gpus
from muralab.errors import SettingsError
from muralab.processor import count_cpus
from muralab.scratch import lock_folder, own_scratch, remove_folder, short_folder

PROGRAM = "from muralab.tune.ray_process import main; main()"
SOCKET_PATH_BYTES = 64
"""What Ray adds to its folder for the longest path of a socket: /session_<time>_<pid>/sockets/plasma_store."""
OUTPUT = "output"
"""File in Ray's folder with what the process prints."""
END_WAIT_S = 10.0
OF_THE_STORE = ("MLFLOW_", "PGPASS")
"""What the names of variables begin with that hold the store's address and passwords; sweep.sbatch has it as well."""


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended, and that its parent has not noticed yet, does not."""
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, as far as they are there."""
    for one in processes:
        with contextlib.suppress(psutil.Error):
            one.kill()


def stopped_tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all that descend from it, stopped, so that none starts another one meanwhile."""
    found: list[psutil.Process] = []
    while fresh := [one for one in _tree(root) if one not in found]:
        for one in fresh:
            with contextlib.suppress(psutil.Error):
                one.suspend()
        found += fresh
    return found


def _tree(root: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [root, *root.children(recursive=True)]
    return []


class RayProcess:
    """A running `ray_process`; a context manager that ends it in every case."""

    def __init__(self, *, cpus: int, gpus: int, cluster: Mapping[str, Any] | None = None) -> None:
        """Start the process, which starts Ray, or connects to it, and waits for its job.

        Args:
            cpus: of a Ray of our own.
            gpus: likewise.
            cluster: `address` and `modules` of an existing cluster; None: a Ray of our own.

        Raises:
            SettingsError: no temporary folder has a path that is short enough for Ray's sockets.
            OSError: the process cannot be started.
        """
        self.size, self._is_on_cluster = (cpus, gpus), cluster is not None
        self._pending, self._is_removed, self.has_ended = b"", False, False
        self._log: Path | None = None
        self._copied = 0
        self.folder = short_folder(SOCKET_PATH_BYTES)
        self._lock = lock_folder(self.folder)
        try:
            self._start()
        except BaseException:
            remove_folder(self.folder)
            self._lock.release()
            raise
        leftovers = [str(folder) for folder in (self.folder, own_scratch()) if folder is not None]
        own = {"cpus": cpus, "gpus": gpus, "ray_folder": str(self.folder), "leftovers": leftovers}
        self._send({**own, "cluster": cluster})

    def _start(self) -> None:
        self._read, write = os.pipe()
        try:
            with (self.folder / OUTPUT).open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env={**ray_environment(), "MURALAB_EVENTS_FD": str(write)},
                    pass_fds=(write,),
                    start_new_session=True,  # Ctrl-C is answered by the command, which then ends this process
                )
        except BaseException:
            os.close(self._read)
            raise
        finally:
            os.close(write)

    def run(self, job: Mapping[str, Any], log: Path) -> None:
        """Start the job.

        Args:
            job: what the process runs.
            log: the file that its output is appended to, what it has printed so far as well; its folder is created.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._copy_output()
        self._send({**job, "log": str(log)})

    @property
    def is_alive(self) -> bool:
        """Whether the process, and so its Ray, has not ended by itself."""
        return self._process.poll() is None

    def _send(self, line: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died; `events` reports that
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None and self._is_on_cluster:  # it disconnects in order; a Ray of our own has nothing left to do
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
            tree = stopped_tree(psutil.Process(self._process.pid))
        kill_all(tree)
        # Not psutil.wait_procs: what Ray's processes leave to init counts there as running until init has looked.
        deadline_s = time.monotonic() + END_WAIT_S
        while any(is_alive(one) for one in tree) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._read)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._copy_output()
        remove_folder(self.folder)
        self._lock.release()

    def _copy_output(self) -> None:
        """Append what the process printed before it had its job to the log; a full disk costs the log alone."""
        if self._log is None:
            return
        with contextlib.suppress(OSError):
            printed = (self.folder / OUTPUT).read_bytes()
            with self._log.open("ab") as log:
                log.write(printed[self._copied :])
            self._copied = len(printed)


class EarlyRay:
    """Starts Ray while a command still opens the store and reads its data: it takes seconds, most of them waiting.

    A context manager, and a function that starts Ray as `RayProcess` does. The first time it returns the process that
    was started early, if that has the right size and lives.
    """

    def __init__(self, *, is_wanted: bool, with_gpus: bool = True) -> None:
        """Start Ray with all cores of this machine.

        Args:
            is_wanted: whether to start it early at all.
            with_gpus: whether also with all GPUs.
        """
        self._process: RayProcess | None = None
        if is_wanted:
            with contextlib.suppress(SettingsError, OSError):  # the later start reports it, in the command's own run
                self._process = RayProcess(cpus=count_cpus(), gpus=count_gpus() if with_gpus else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __call__(self, *, cpus: int, gpus: int, cluster: Mapping[str, Any] | None = None) -> RayProcess:
        """A running process: the early one, or a new one."""
        early, self._process = self._process, None
        if early is not None:
            if cluster is None and early.size == (cpus, gpus) and early.is_alive:
                return early
            early.end()
        return RayProcess(cpus=cpus, gpus=gpus, cluster=cluster)

    def end(self) -> None:
        """End a process that was started early and is not used."""
        if self._process is not None:
            self._process.end()
            self._process = None


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
