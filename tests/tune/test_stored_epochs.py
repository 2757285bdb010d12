"""Checkpoints in a storage: uploaded beside the training, exact to the epoch, the last complete one wins."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muralab.errors import StorageError, StorageUnavailableError
from muralab.storage import Storage
from muralab.tune import stored_epochs as module
from muralab.tune.stored_epochs import EpochUploader, fetch_epoch, fetch_newest, keep_epochs, stored_epochs

TRIAL = "sweeps/r/trials/a"
LAST, BEST = "last.safetensors", "best_full.safetensors"


class SlowStorage(Storage):
    """A storage in a folder whose uploads can be held up, or fail."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(str(folder))
        self.wait_s, self.failures, self.uploads = 0.0, [], []  # type: ignore[var-annotated]

    def upload(self, local: Path, name: str) -> None:
        time.sleep(self.wait_s)
        if self.failures:
            raise self.failures.pop(0)
        self.uploads.append(name)
        super().upload(local, name)


@pytest.fixture
def storage(tmp_path: Path) -> SlowStorage:
    return SlowStorage(tmp_path / "storage")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    (tmp_path / "trial").mkdir()
    return tmp_path / "trial"


def write(folder: Path, name: str, text: str) -> None:
    """Replace a file as training does: never in place."""
    (folder / "new").write_text(text)
    (folder / "new").replace(folder / name)


def training(folder: Path, epochs: int, best: int = 1, first: int = 1) -> Generator[Any]:
    """Epochs whose checkpoints say which they are; `best` is the last one with new best weights."""
    for epoch in range(first, epochs + 1):
        write(folder, LAST, f"last {epoch}")
        if epoch <= best:
            write(folder, BEST, f"best {epoch}")
        yield SimpleNamespace(global_epoch=epoch, seconds=1.0)


def fetched(storage: Storage, into: Path) -> dict[str, str]:
    fetch_newest(storage, TRIAL, into)
    return {path.name: path.read_text() for path in sorted(into.iterdir())}


def train(storage: Storage, local: Path, epochs: int, best: int = 1) -> list[int]:
    with EpochUploader(storage, TRIAL, local) as uploader:
        return [result.global_epoch for result in keep_epochs(training(local, epochs, best), uploader)]


def test_every_epoch_is_reported_once_and_the_last_one_is_fetched(
    storage: SlowStorage, local: Path, tmp_path: Path
) -> None:
    assert train(storage, local, 5, best=2) == [1, 2, 3, 4, 5]
    assert fetched(storage, tmp_path / "into") == {BEST: "best 2", LAST: "last 5"}
    assert [path.name for path in local.iterdir() if path.is_dir()] == []


def test_what_has_not_changed_is_not_uploaded_again(storage: SlowStorage, local: Path) -> None:
    train(storage, local, 4, best=2)
    assert sum(name.endswith(BEST) for name in storage.uploads) == 2


def test_old_epochs_are_removed_with_what_only_they_need(storage: SlowStorage, local: Path) -> None:
    train(storage, local, 6, best=4)
    assert [one.epoch for one in stored_epochs(storage, TRIAL)] == [6, 5, 4]
    files = [name for name in storage.names(TRIAL) if not name.endswith(".json")]
    assert sorted(name.split("-", 1)[1] for name in files) == [
        f"000004-{BEST}", f"000004-{LAST}", f"000005-{LAST}", f"000006-{LAST}",
    ]  # fmt: skip


def test_an_epoch_that_was_reported_can_be_fetched_exactly(storage: SlowStorage, local: Path, tmp_path: Path) -> None:
    train(storage, local, 5, best=5)
    fetch_epoch(storage, TRIAL, 4, tmp_path / "into", without=(LAST,))
    assert {path.name: path.read_text() for path in (tmp_path / "into").iterdir()} == {BEST: "best 4"}
    with pytest.raises(StorageError, match="epoch 1 of sweeps/r/trials/a is missing or damaged"):
        fetch_epoch(storage, TRIAL, 1, tmp_path / "into")


def test_a_slow_upload_delays_the_report_and_not_the_training(storage: SlowStorage, local: Path) -> None:
    storage.wait_s = 0.2
    trained: list[int] = []

    def epochs() -> Iterator[Any]:
        for result in training(local, 3, best=0):
            trained.append(result.global_epoch)
            yield result

    with EpochUploader(storage, TRIAL, local) as uploader:
        reported = keep_epochs(epochs(), uploader)  # type: ignore[arg-type]
        assert next(reported).global_epoch == 1
        assert trained[-1] > 1
        assert uploader.uploaded >= 1
        assert [result.global_epoch for result in reported] == [2, 3]


def test_a_resumed_trial_repeats_what_is_stored_without_uploading_it(storage: SlowStorage, local: Path) -> None:
    train(storage, local, 3)
    uploads = len(storage.uploads)
    with EpochUploader(storage, TRIAL, local, uploaded=3) as uploader:
        repeated = keep_epochs(training(local, 4, best=0), uploader)
        assert [result.global_epoch for result in repeated] == [1, 2, 3, 4]
    assert len(storage.uploads) == uploads + 2  # the files of epoch 4; another attempt relies on none of the first's


@pytest.mark.parametrize("damage", ["manifest", "content", "missing"])
def test_the_last_complete_epoch_wins(storage: SlowStorage, local: Path, tmp_path: Path, damage: str) -> None:
    train(storage, local, 3)
    folder = tmp_path / "storage" / TRIAL
    if damage == "manifest":
        next(folder.glob("*-000003.json")).write_text('{"last')
    elif damage == "content":
        next(folder.glob(f"*-000003-{LAST}")).write_text("last X")
    else:
        next(folder.glob(f"*-000003-{LAST}")).unlink()
    assert fetch_newest(storage, TRIAL, tmp_path / "into") == 2
    assert fetched(storage, tmp_path / "into") == {BEST: "best 1", LAST: "last 2"}


def test_without_an_epoch_nothing_is_fetched(storage: SlowStorage, tmp_path: Path) -> None:
    assert fetch_newest(storage, TRIAL, tmp_path / "into") == 0


def test_two_attempts_do_not_disturb_each_other(storage: SlowStorage, local: Path, tmp_path: Path) -> None:
    """A node that was cut off trains on while its trial runs again elsewhere."""
    other = tmp_path / "other"
    other.mkdir()
    with EpochUploader(storage, TRIAL, local) as lost, EpochUploader(storage, TRIAL, other) as again:
        for _ in zip(keep_epochs(training(local, 6, 6), lost), keep_epochs(training(other, 6, 1), again), strict=True):
            pass
    for manifest in (tmp_path / "storage" / TRIAL).glob("*.json"):
        described = json.loads(manifest.read_text())
        assert all((manifest.parent / file["name"]).is_file() for file in described.values())


def test_an_outage_is_waited_for(storage: SlowStorage, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muralab.storage.RETRY_EVERY_S", 0.01)
    storage.failures = [StorageUnavailableError("down"), StorageUnavailableError("down")]
    assert train(storage, local, 2) == [1, 2]


def test_a_storage_that_refuses_fails_the_trial(storage: SlowStorage, local: Path) -> None:
    storage.failures = [StorageError("access denied")]
    with pytest.raises(StorageError, match="access denied"):
        train(storage, local, 3)


def test_a_trial_that_is_stopped_does_not_wait_for_an_outage(
    storage: SlowStorage, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OUTAGE_S", 600.0)
    storage.failures = [StorageUnavailableError("down")] * 100
    write(local, LAST, "last 1")
    with EpochUploader(storage, TRIAL, local) as uploader:
        uploader.submit(1)
        started = time.monotonic()
    assert time.monotonic() - started < 30
