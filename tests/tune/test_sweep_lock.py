"""One process at a time works on a sweep, on this host or another; a dead one does not count."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from muralab.errors import SettingsError
from muralab.tracking.process import process_tags
from muralab.tracking.tags import Tag
from muralab.tune.sweep_lock import EXPIRES_S, LOCK, OWNER, is_locked, sweep_lock
from tests.processes import environment

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom muralab.tune.sweep_lock import sweep_lock\n"
    "with sweep_lock(Path(sys.argv[1]), 'abc'):\n    print('held', flush=True)\n    time.sleep(600)\n"
)


def own(folder: Path, age_s: float = 0.0, **tags: str) -> None:
    """Write that a process works on a sweep."""
    identity = {name: process_tags()[name] for name in (Tag.HOST, Tag.PID, Tag.PROCESS_STARTED)}
    names = {"host": Tag.HOST, "pid": Tag.PID, "started": Tag.PROCESS_STARTED}
    (folder / OWNER).write_text(json.dumps(identity | {names[key]: value for key, value in tags.items()}))
    os.utime(folder / OWNER, (time.time() - age_s,) * 2)


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_locked(tmp_path)
        with pytest.raises(SettingsError, match=f"resume=abc: this sweep is being run by process {process.pid} on"):
            sweep_lock(tmp_path, "abc").__enter__()
        process.kill()
    assert not is_locked(tmp_path)
    with sweep_lock(tmp_path, "abc"):
        assert json.loads((tmp_path / OWNER).read_text())[Tag.PID] == str(os.getpid())
    assert not is_locked(tmp_path)


def test_a_process_that_has_the_lock_but_has_not_yet_written_that_it_is_the_owner_counts(tmp_path: Path) -> None:
    with (tmp_path / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(tmp_path)
        with pytest.raises(SettingsError, match="by process unknown on an unknown host"):
            sweep_lock(tmp_path, "abc").__enter__()
    assert not (tmp_path / OWNER).exists()


def test_without_locks_a_live_owner_counts_and_a_dead_one_does_not(
    tmp_path: Path, break_locks: Callable[..., None]
) -> None:
    break_locks()
    with sweep_lock(tmp_path, "abc"):
        assert json.loads((tmp_path / OWNER).read_text())[Tag.PID] == str(os.getpid())
    own(tmp_path, age_s=EXPIRES_S / 2, host="other-host")
    assert is_locked(tmp_path)
    with pytest.raises(SettingsError):
        sweep_lock(tmp_path, "abc").__enter__()
    own(tmp_path, age_s=EXPIRES_S + 5, host="other-host")
    assert not is_locked(tmp_path)


def test_a_process_on_another_host_counts_while_it_renews_its_stamp(tmp_path: Path) -> None:
    own(tmp_path, age_s=EXPIRES_S / 2, host="other-host")
    with pytest.raises(SettingsError, match=r"on other-host.*If that process is dead, try again in 90 s"):
        sweep_lock(tmp_path, "abc").__enter__()


def test_a_process_on_another_host_that_died_is_replaced(tmp_path: Path) -> None:
    own(tmp_path, age_s=EXPIRES_S + 5, host="other-host")
    with sweep_lock(tmp_path, "abc"):
        pass
    assert not (tmp_path / OWNER).exists()


def test_a_dead_process_of_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    started = process_tags()[Tag.PROCESS_STARTED].rpartition(".")[0]
    own(tmp_path, pid="2", started=f"{started}.7")
    with sweep_lock(tmp_path, "abc"):
        pass


def test_a_process_of_another_container_counts_while_it_renews_its_stamp(tmp_path: Path) -> None:
    boot = process_tags()[Tag.PROCESS_STARTED].partition(".")[0]
    own(tmp_path, started=f"{boot}.1234.7")
    with pytest.raises(SettingsError):
        sweep_lock(tmp_path, "abc").__enter__()


def test_a_damaged_owner_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / OWNER).write_text("{")
    with sweep_lock(tmp_path, "abc"):
        pass
