"""A storage in a real S3 server: what is written is read, and what is wrong has its own message."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from muralab.data.mirror import mirror_data
from muralab.data.mura import read_index
from muralab.errors import StorageError, StorageMissingError, StorageUnavailableError
from muralab.storage import Storage
from tests.cluster.nodes import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for key, value in s3.items():
        monkeypatch.setenv(key, value)
    return s3


def test_files_travel_through_a_bucket(lab: dict[str, str], tmp_path: Path) -> None:
    storage = Storage("s3://lab/mura/x")
    storage.check()
    (tmp_path / "file").write_bytes(b"7" * 12_000_000)
    storage.upload(tmp_path / "file", "sweeps/r/file")
    storage.write("sweeps/r/trials/a/plan.json", b"{}")
    storage.download("sweeps/r/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    assert (storage.names("sweeps/r"), storage.folders("sweeps/r")) == (["file"], ["trials"])
    storage.remove("sweeps/r/file")
    storage.remove_folder("sweeps")
    storage.remove_folder("sweeps")
    assert storage.names("sweeps/r") == []
    with pytest.raises(StorageMissingError):
        storage.read("sweeps/r/file")


def test_a_tree_in_a_bucket_is_fetched_once(lab: dict[str, str], easy_tree: Path, tmp_path: Path) -> None:
    images = read_index(easy_tree, "wrist")
    bucket = Storage("s3://lab/data/MURA-v1.1")
    for path, image in zip(images["path"], images["image"]):
        bucket.upload(Path(path), image)
    fetched: list[str] = []

    def progress(title: str) -> Callable[[int, int], None]:
        return lambda done, total: fetched.append(f"{title}: {done} of {total}")

    root = mirror_data("s3://lab/data", "wrist", tmp_path, progress)
    assert fetched[-1] == f"fetching images: {len(images)} of {len(images)}"
    n_fetched = len(fetched)
    assert mirror_data("s3://lab/data", "wrist", tmp_path, progress) == root
    assert len(fetched) == n_fetched
    copy = read_index(root, "wrist")
    assert [Path(path).read_bytes() for path in copy["path"]] == [Path(path).read_bytes() for path in images["path"]]


def test_an_endpoint_may_stand_in_the_uri(lab: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    host = lab["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    Storage(f"s3://lab/mura/y?scheme=http&endpoint_override={host}").check()


def test_a_missing_bucket_is_named_and_not_created(lab: dict[str, str]) -> None:
    for _ in range(2):
        with pytest.raises(StorageError, match=r"=s3://typo/x: there is no bucket typo at http://.*\. Create it"):
            Storage("s3://typo/x").check()


def test_another_servers_bucket_of_the_same_name_is_recognised(lab: dict[str, str]) -> None:
    storage = Storage("s3://lab/mura")
    with storage.witness() as witness:
        storage.check(witness)
    with pytest.raises(StorageError, match="bucket is another one here: is AWS_ENDPOINT_URL that of the command"):
        storage.check(witness)


@pytest.mark.parametrize(
    ("key", "reason"), [("AWS_SECRET_ACCESS_KEY", "denied|signature"), ("AWS_ACCESS_KEY_ID", "denied|access key")]
)
def test_wrong_keys_are_named_without_being_shown(
    lab: dict[str, str], monkeypatch: pytest.MonkeyPatch, key: str, reason: str
) -> None:
    monkeypatch.setenv(key, "wrong-and-private")
    with pytest.raises(StorageError, match=reason) as caught:
        Storage("s3://lab/mura").check()
    assert "the environment must hold valid keys" in str(caught.value)
    assert "wrong-and-private" not in str(caught.value)


def test_a_server_that_is_down_is_worth_another_attempt(lab: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    started_s = time.monotonic()
    with pytest.raises(StorageUnavailableError, match="it does not answer"):
        Storage("s3://lab/mura").check()
    assert time.monotonic() - started_s < 15
