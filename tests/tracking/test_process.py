"""Whether the process that wrote a run is alive."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from muralab.tracking import is_alive, process_tags
from muralab.tracking.process import is_gone, process_started


@pytest.fixture
def other() -> subprocess.Popen[bytes]:
    """Another process, which a test may end."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def tags_of(process: subprocess.Popen[bytes]) -> dict[str, str]:
    started = process_started(process.pid)
    assert started
    return {"muralab.host": socket.gethostname(), "muralab.pid": str(process.pid), "muralab.process_started": started}


def test_a_process_names_itself() -> None:
    tags = process_tags()
    assert tags["muralab.host"] == socket.gethostname()
    assert tags["muralab.pid"] == str(os.getpid())
    assert re.fullmatch(r"[0-9a-f]{40}", tags["mlflow.source.git.commit"])


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: {}["nobody"])
    assert process_tags()["mlflow.user"] == str(os.getuid())


def test_this_process_is_alive() -> None:
    assert is_alive(process_tags())
    assert not is_gone(process_tags())


def test_an_ended_process_is_gone(other: subprocess.Popen[bytes]) -> None:
    tags = tags_of(other)
    other.kill()
    other.wait()
    assert is_gone(tags)
    assert not is_alive(tags)


def test_a_zombie_is_gone(other: subprocess.Popen[bytes]) -> None:
    tags = tags_of(other)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(tags)


def test_another_process_with_a_reused_pid_is_recognised() -> None:
    tags = process_tags()
    reused = tags | {"muralab.process_started": tags["muralab.process_started"] + "1"}
    assert is_gone(reused)
    assert not is_alive(reused)


def test_a_process_of_an_earlier_boot_is_gone() -> None:
    assert is_gone({"muralab.pid": str(os.getpid()), "muralab.process_started": "0a1b2c3d.4026531836.152678"})


def test_a_process_of_another_container_is_unknown() -> None:
    boot, _, ticks = process_tags()["muralab.process_started"].split(".")
    tags = process_tags() | {"muralab.process_started": f"{boot}.1.{ticks}"}
    assert not is_gone(tags)
    assert not is_alive(tags)


@pytest.mark.parametrize("tags", [{}, {"muralab.pid": "1"}, {"muralab.pid": "x", "muralab.process_started": "a.b.1"}])
def test_a_process_without_tags_is_unknown(tags: dict[str, str]) -> None:
    assert not is_gone(tags)
    assert not is_alive({"muralab.host": socket.gethostname(), **tags})


def test_a_start_of_another_format_is_unknown() -> None:
    tags = process_tags() | {"muralab.process_started": "Thu Nov 26 21:44:01 2026"}  # as 2303a03 wrote it on macOS
    assert not is_gone(tags)
    assert not is_alive(tags)


def test_a_process_that_may_not_be_inspected_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = process_tags()
    monkeypatch.setattr(psutil.Process, "status", lambda process: _deny(process.pid))
    assert not is_gone(tags)
    assert not is_alive(tags)


def _deny(pid: int) -> str:
    raise psutil.AccessDenied(pid)


def test_the_start_is_the_one_that_2303a03_wrote() -> None:
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert process_tags()["muralab.process_started"].rpartition(".")[2] == ticks


def test_a_process_of_another_host_is_not_known_to_be_alive() -> None:
    assert not is_alive(process_tags() | {"muralab.host": "elsewhere"})
