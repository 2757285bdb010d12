"""A storage on a folder and behind fsspec: complete files or none, plain reasons, no secrets. S3: tests/cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from muralab.errors import SettingsError, StorageError, StorageMissingError, StorageUnavailableError
from muralab.storage import Storage, check_uri, patiently


@pytest.fixture(params=["folder", "fsspec"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    (tmp_path / "lab").mkdir()
    return Storage(str(tmp_path / "lab") if request.param == "folder" else f"local://{tmp_path}/lab")


def test_what_is_written_is_read(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "a b#.bin").write_bytes(b"123")
    storage.check()
    storage.upload(tmp_path / "a b#.bin", "sweeps/x/a b#.bin")
    storage.write("sweeps/x/plan.json", b"{}")
    storage.download("sweeps/x/a b#.bin", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == b"123"
    assert storage.names("sweeps/x") == ["a b#.bin", "plan.json"]
    assert (storage.folders("sweeps"), storage.names("sweeps")) == (["x"], [])
    assert storage.read("sweeps/x/plan.json") == b"{}"


def test_removing_twice_does_no_harm(storage: Storage) -> None:
    storage.write("sweeps/x/plan.json", b"{}")
    for _ in range(2):
        storage.remove("sweeps/x/plan.json")
        storage.remove_folder("sweeps")
    assert storage.names("sweeps/x") == []
    assert not storage.exists("sweeps/x/plan.json")


def test_a_missing_file_is_told_from_a_storage_that_fails(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageMissingError, match=r"storage=.*lab cannot read plan\.json: it does not exist"):
        storage.read("plan.json")
    with pytest.raises(StorageMissingError):
        storage.download("plan.json", tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == [tmp_path / "lab"]


def test_an_upload_that_fails_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(StorageError):
        storage.upload(tmp_path / "absent", "a/b")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no folder .*/typo\. Create it, or correct the name"):
        Storage(str(tmp_path / "typo")).check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["nothing-opens://x/y", "ftps3x://a"])
def test_a_uri_that_nothing_opens_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match="Expected a folder, s3://bucket/prefix"):
        Storage(uri)


def test_keys_in_a_uri_are_refused_without_being_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        check_uri("s3://key:topsecret@bucket/prefix")
    assert "topsecret" not in str(caught.value)
    check_uri("sftp://ada@host/folder")


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject", StorageError, "signature does not match. On every"),
        ("AWS Error ACCESS_DENIED during HeadBucket", StorageError, "access denied. On every machine"),
        ("AWS Error NO_SUCH_BUCKET during PutObject", StorageMissingError, "it does not exist"),
        ("NETWORK_CONNECTION; Details: Failed to connect", StorageUnavailableError, "answer (Failed to connect)"),
        ("No space left on device", StorageError, "The disk is full"),
    ],
)  # fmt: skip
def test_reasons_are_plain(tmp_path: Path, text: str, kind: type[StorageError], reason: str) -> None:
    error = Storage(str(tmp_path))._explained(OSError(text), "cannot write x")
    assert type(error) is kind
    assert reason in str(error)


def test_an_outage_is_waited_for_and_anything_else_is_not() -> None:
    failures: list[StorageError] = [StorageUnavailableError("down"), StorageUnavailableError("down")]
    waited: list[float] = []

    def action() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert patiently(action, 60, waited.append) == "done"
    assert len(waited) == 2
    failures.append(StorageError("wrong keys"))
    with pytest.raises(StorageError, match="wrong keys"):
        patiently(action, 60, waited.append)
    failures.append(StorageUnavailableError("down"))
    with pytest.raises(StorageUnavailableError):
        patiently(action, 0, waited.append)
