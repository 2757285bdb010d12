"""Which process wrote a run, and whether it is alive."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from muralab.tracking.platform_version import platform_version
from muralab.tracking.tags import Tag

UNKNOWN = "unknown"


def process_tags() -> dict[str, str]:
    """Tags that identify this process: host, pid, start time, user, and the platform's code (`platform_version`)."""
    pid = os.getpid()
    platform = platform_version()
    return (
        {
            Tag.HOST: socket.gethostname(),
            Tag.PID: str(pid),
            Tag.PROCESS_STARTED: process_started(pid) or UNKNOWN,
            Tag.USER: _user(),
            Tag.SOURCE_NAME: "muralab",
            Tag.SOURCE_TYPE: "LOCAL",
        }
        | platform.tags
        | platform.commit_tag
    )


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a passwd entry, in a container
        return getpass.getuser()
    return str(os.getuid())


def process_started(pid: int) -> str | None:
    """The start time of a live process as an opaque text, to recognise a reused pid; None if the process has ended.

    The text is `<boot>.<pid namespace>.<clock ticks since boot>`, the first two `unknown` on other systems than Linux.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        # Both times are of the wall clock; their difference does not change when the clock is corrected.
        since_boot_s = process.create_time() - psutil.boot_time()
        return f"{_boot()}.{round(since_boot_s * os.sysconf('SC_CLK_TCK'))}"
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return UNKNOWN


def _boot() -> str:
    """The machine's boot and this pid namespace, the scope in which a pid identifies a process."""
    boot, namespace = UNKNOWN, UNKNOWN
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    with contextlib.suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{boot}.{namespace}"


def is_alive(tags: Mapping[str, str]) -> bool:
    """Whether the process that wrote these tags is known to be running, on this host."""
    pid, started = _read_tags(tags)
    return tags.get(Tag.HOST) == socket.gethostname() and started is not None and process_started(pid) == started


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process that wrote these tags on this host is known to have ended."""
    pid, started = _read_tags(tags)
    if started is None:
        return False
    boot, namespace = started.split(".")[:2]
    own_boot, own_namespace = _boot().split(".")
    if boot == own_boot and namespace != own_namespace:
        return False  # another container on this machine: its processes are not visible here
    return process_started(pid) not in (started, UNKNOWN)


def _read_tags(tags: Mapping[str, str]) -> tuple[int, str | None]:
    """Pid and start of a process; without start if the tags are missing or not in the format of `process_started`."""
    pid, started = tags.get(Tag.PID, ""), tags.get(Tag.PROCESS_STARTED, "")
    known = pid.isdigit() and started.count(".") == 2
    return (int(pid), started) if known else (0, None)
