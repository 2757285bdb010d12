"""Which process wrote a run, and whether it is alive."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from muralab.tracking.tags import Tag


def process_tags() -> dict[str, str]:
    """Tags that identify this process: host, pid, start time, user, and the commit of the checkout if there is one."""
    pid = os.getpid()
    return {
        Tag.HOST: socket.gethostname(),
        Tag.PID: str(pid),
        Tag.PROCESS_STARTED: process_started(pid) or "unknown",
        Tag.USER: _user(),
        Tag.SOURCE_NAME: "muralab",
        Tag.SOURCE_TYPE: "LOCAL",
    } | commit_tag()


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a passwd entry, in a container
        return getpass.getuser()
    return str(os.getuid())


@functools.cache
def commit_tag() -> dict[str, str]:
    """The commit of the checkout that tracks this file; empty for a package installed inside another project."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return {}
    commit = _git(here.parent, "rev-parse", "HEAD")
    return {Tag.GIT_COMMIT: commit} if commit else {}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()
    return None


def process_started(pid: int) -> str | None:
    """The start time of a live process as an opaque text, to recognise a reused pid; None if the process has ended.

    On Linux: `<boot>.<pid namespace>.<clock ticks since boot>`.
    """
    if not Path("/proc/self/stat").exists():
        return _started_by_ps(pid)
    try:
        # The command's name may contain spaces and parentheses: count the fields after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":  # a zombie: it has ended, but its parent has not waited for it
        return None
    return f"{_boot()}.{fields[19]}"


def _boot() -> str:
    """The machine's boot and this pid namespace, the scope in which a pid identifies a process."""
    boot, namespace = "unknown", "unknown"
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    with contextlib.suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{boot}.{namespace}"


def _started_by_ps(pid: int) -> str | None:
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return " ".join(done.stdout.split()) or None


def is_alive(tags: Mapping[str, str]) -> bool:
    """Whether the process that wrote these tags is known to be running, on this host."""
    pid, started = tags.get(Tag.PID, ""), tags.get(Tag.PROCESS_STARTED, "unknown")
    here = tags.get(Tag.HOST) == socket.gethostname() and pid.isdigit() and started != "unknown"
    return here and process_started(int(pid)) == started


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process that wrote these tags on this host is known to have ended."""
    pid, started = tags.get(Tag.PID, ""), tags.get(Tag.PROCESS_STARTED, "unknown")
    if not pid.isdigit() or started == "unknown":
        return False
    boot, _, rest = started.partition(".")
    here, _, _ = _boot().partition(".")
    if rest and boot == here and not started.startswith(_boot() + "."):
        return False  # another container on this machine: its processes are not visible here
    return process_started(int(pid)) != started
