"""One command at a time works on a sweep in a storage, whatever machine it runs on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from muralab.errors import SettingsError, StorageError, SweepTakenError
from muralab.storage import Storage
from muralab.tracking.tags import Tag
from muralab.tune import sweep_owner
from muralab.tune.sweep_lock import EXPIRES_S, own_identity
from muralab.tune.sweep_owner import SweepOwner
from tests.processes import environment

FOLDER = "sweeps/abc"
HOLD = (
    "import sys, time\nfrom muralab.storage import Storage\nfrom muralab.tune.sweep_owner import SweepOwner\n"
    "with SweepOwner(Storage(sys.argv[1]), 'sweeps/abc', 'abc'):\n    print('held', flush=True)\n    time.sleep(600)\n"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_owner, "SETTLE_S", 0.3)
    monkeypatch.setattr(sweep_owner, "RENEW_S", 0.05)
    monkeypatch.setattr(sweep_owner, "LOOK_S", 0.02)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    (tmp_path / "storage").mkdir()
    return Storage(str(tmp_path / "storage"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "storage" / FOLDER / "owner.json"


def own(file: Path, age_s: float = 0.0, **changes: str) -> None:
    """Write another command's claim."""
    names = {"host": Tag.HOST, "pid": Tag.PID, "started": Tag.PROCESS_STARTED}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(own_identity() | {names[key]: value for key, value in changes.items()}))
    os.utime(file, (time.time() - age_s,) * 2)


def claim(storage: Storage) -> SweepOwner:
    return SweepOwner(storage, FOLDER, "abc")


def test_a_second_command_is_refused_until_the_first_dies(storage: Storage, file: Path) -> None:
    command = [sys.executable, "-c", HOLD, storage.uri]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(SettingsError, match=rf"resume=abc: .* by process {process.pid} on .*interrupt it first\.$"):
            claim(storage).__enter__()
        process.kill()
    with claim(storage):
        assert json.loads(file.read_text())[Tag.PID] == str(os.getpid())
    assert not file.exists()


def test_a_command_on_another_machine_counts_while_it_renews_its_claim(storage: Storage, file: Path) -> None:
    own(file, EXPIRES_S / 2, host="other")
    with pytest.raises(SettingsError, match=r"on other.*If that process is dead, try again in 90 s"):
        claim(storage).__enter__()
    own(file, EXPIRES_S + 5, host="other")
    with claim(storage):
        assert [path.name for path in file.parent.iterdir()] == ["owner.json"]


def test_a_machine_of_the_same_name_is_another_one(storage: Storage, file: Path) -> None:
    own(file, pid="2", started="12345678.1.7")
    with pytest.raises(SettingsError, match="by process 2 on"):
        claim(storage).__enter__()


def test_without_times_of_files_those_in_the_claims_count(
    storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = storage._stored
    monkeypatch.setattr(storage, "_stored", lambda found: type(stored(found))(stored(found).name, 0, 0))
    own(file, host="other")
    with claim(storage):  # it has never been renewed
        pass
    file.write_text(json.dumps({**own_identity(), Tag.HOST: "other", "renewed_s": time.time()}))
    with pytest.raises(SettingsError):
        claim(storage).__enter__()


def test_of_two_commands_that_claim_a_sweep_at_once_one_is_refused(storage: Storage, file: Path) -> None:
    def overtake() -> None:
        time.sleep(0.15)
        own(file, host="other")

    with ThreadPoolExecutor() as pool:
        pool.submit(overtake)
        with pytest.raises(SettingsError, match="on other"):
            claim(storage).__enter__()
    assert json.loads(file.read_text())[Tag.HOST] == "other"


def until_lost(owner: SweepOwner) -> Iterator[None]:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        owner.require()
        time.sleep(0.02)
        yield


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_command_that_was_replaced_finds_out_and_leaves_the_claim(
    storage: Storage, file: Path, is_removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine slept for a while: another command has taken the sweep over, and may have ended it since."""
    with claim(storage) as owner:
        owner.require()
        if is_removed:
            monkeypatch.setattr(sweep_owner, "EXPIRES_S", 0.0)
            file.unlink()
        else:
            own(file, host="other")
        why = (
            "Another command has worked on and ended or left the sweep abc"
            if is_removed
            else "Another command has taken over the sweep abc"
        )
        with pytest.raises(SweepTakenError, match=why):
            list(until_lost(owner))
    assert file.exists() != is_removed


def test_a_claim_is_renewed(storage: Storage, file: Path) -> None:
    with claim(storage) as owner:
        os.utime(file, (0, 0))
        for _ in until_lost(owner):
            if file.stat().st_mtime > 0:
                return
    raise AssertionError


def test_a_claim_that_is_gone_is_written_again_before_it_would_have_expired(storage: Storage, file: Path) -> None:
    with claim(storage) as owner:
        shutil.rmtree(file.parent)
        for _ in until_lost(owner):
            if file.exists():
                return
    raise AssertionError


def test_a_storage_that_is_not_mounted_for_a_moment_takes_no_sweep_away(storage: Storage, file: Path) -> None:
    root, away = Path(storage.uri), Path(storage.uri).with_name("away")
    with claim(storage) as owner:
        root.rename(away)
        root.mkdir()
        time.sleep(0.5)
        owner.require()
        assert list(root.iterdir()) == []
        root.rmdir()
        away.rename(root)
        os.utime(file, (0, 0))
        for _ in until_lost(owner):
            if file.stat().st_mtime > 0:
                return
    raise AssertionError


def test_an_error_of_whatever_opens_the_storage_does_not_end_the_renewal(
    storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(storage) as owner:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "read", lambda _: 1 / 0)
            time.sleep(0.3)
        os.utime(file, (0, 0))
        for _ in until_lost(owner):
            if file.stat().st_mtime > 0:
                return
    raise AssertionError


def test_a_claim_that_failed_half_way_is_given_up(
    storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        assert file.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        claim(storage).__enter__()
    assert not file.exists()


@pytest.mark.parametrize("is_renewing", [True, False])
def test_a_command_ends_although_the_storage_does_not_answer(
    storage: Storage, file: Path, is_renewing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_owner, "STOP_S", 0.2)
    monkeypatch.setattr(sweep_owner, "CHECK_S", 0.2)
    monkeypatch.setattr(sweep_owner, "RENEW_S", 0.05 if is_renewing else 600)
    asked = threading.Event()

    def read(_: str) -> bytes:
        asked.set()
        time.sleep(60)
        raise StorageError("gone")

    with claim(storage):
        monkeypatch.setattr(storage, "read", read)
        assert asked.wait(20) or not is_renewing
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 10
    assert file.exists()
