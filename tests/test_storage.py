"""A storage on a folder and behind fsspec: complete files or none, plain reasons, no secrets. S3: tests/cluster."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from muralab import storage as storage_module
from muralab.errors import SettingsError, StorageError, StorageMissingError, StorageUnavailableError
from muralab.storage import Storage, patiently
from muralab.storage_uri import ENDPOINTS, _with_region, check_uri, other_bucket_hint


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


CONTENT = b"pixels"
MD5 = hashlib.md5(CONTENT).hexdigest()
OF_ONE_PART = f"{hashlib.md5(bytes.fromhex(MD5)).hexdigest()}-1"


class Stated:
    """A file system of one file: each reading gives the next content, the last one again and again."""

    type_name = "s3"

    def __init__(self, etag: str, contents: list[bytes]) -> None:
        self.etag, self.contents, self.n_read = etag, contents, 0

    def open_input_stream(self, _: str) -> Stated:
        self.stream = io.BytesIO(self.contents[min(self.n_read, len(self.contents) - 1)])
        self.n_read += 1
        return self

    def metadata(self) -> dict[str, bytes]:
        return {"ETag": f'"{self.etag}"'.encode()}

    def read(self, n_bytes: int) -> bytes:
        return self.stream.read(n_bytes)

    def __enter__(self) -> Stated:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


@pytest.mark.parametrize(
    ("etag", "contents", "n_read"),
    [
        (MD5, [CONTENT], 1),
        (OF_ONE_PART, [CONTENT], 1),
        (f"{MD5}-3", [CONTENT], 1),
        (MD5, [b"pixelz", CONTENT], 2),
        (OF_ONE_PART, [b"pix", CONTENT], 2),
        ("0" * 32, [CONTENT], 2),
    ],
    ids=["whole", "one part", "many parts", "damaged", "cut off", "encrypted"],
)
def test_what_arrives_is_what_s3_states(tmp_path: Path, etag: str, contents: list[bytes], n_read: int) -> None:
    storage = Storage(str(tmp_path))
    storage._files = Stated(etag, contents)
    for name in ("a", "b"):  # where a digest is of something else, that is found out once
        storage.download(name, tmp_path / name)
        assert (tmp_path / name).read_bytes() == CONTENT
    assert storage._files.n_read == n_read + 1


def test_what_arrives_damaged_twice_is_refused(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage._files = Stated(MD5, [b"pixelz", b"pixelx"])
    with pytest.raises(StorageError, match="cannot read a: it arrives damaged"):
        storage.download("a", tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["nothing-opens://x/y", "ftps3x://a"])
def test_a_uri_that_nothing_opens_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match="Expected a folder, s3://bucket/prefix"):
        Storage(uri)


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("s3://key:topsecret@bucket/prefix", "a password"),
        ("s3://key:topsecret@bucket/prefix#1", "a password"),
        ("abfs://lab@account/mura?tenant_id=1&client_secret=topsecret", r"a secret \(client_secret\)"),
        ("abfs://lab@account/mura?account_key=topsecret", r"a secret \(account_key\)"),
        ("https://host/rows.csv?X-Amz-Date=1&X-Amz-Signature=topsecret", r"a secret \(X-Amz-Signature\)"),
        ("https://account/rows.csv?sv=1&sig=topsecret", r"a secret \(sig\)"),
        ("https://topsecret@host/rows.csv", "a user name or a token"),
    ],
)
def test_keys_in_a_uri_are_refused_without_being_repeated(uri: str, what: str) -> None:
    with pytest.raises(SettingsError, match=f"^storage=: the URI holds {what}, and would be logged") as caught:
        check_uri(uri)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "sftp://ada@host/folder",
        "abfs://lab@account/mura?credential_kind=environment&tenant_id=1",
        "s3://lab/mura?scheme=http&endpoint_override=s3.lab:8333&region=eu",
    ],
)
def test_a_uri_without_keys_is_accepted(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize("uri", ["s3://lab/mura?region=x&scheme=http&endpoint_override=", "s3://lab/mura?region=x"])
def test_a_missing_bucket_is_missing_at_an_address(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with running_server(NothingThere) as address:
        host = address.removeprefix("http://")
        for key, value in (keys if "override" in uri else keys | {"AWS_ENDPOINT_URL": address}).items():
            monkeypatch.setenv(key, value)
        storage = Storage(f"{uri}{host}" if "override" in uri else uri)
        with pytest.raises(StorageError, match=rf"no bucket lab at \S*{host}\. Create it, or correct the name or the"):
            storage.check()


class NothingThere(BaseHTTPRequestHandler):
    """A web server that is no S3: it has nothing at any address."""

    def do_HEAD(self) -> None:
        """Answer 404."""
        self.send_error(404)

    def do_GET(self) -> None:
        """Answer 404."""
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def running_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server on a free port of the loopback address; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 server that accepts connections and never answers."""
    for key in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(key, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield


def test_a_server_that_never_answers_is_named_within_15_s(silent_server: None) -> None:
    started_s = time.monotonic()
    with pytest.raises(StorageUnavailableError, match=r"^storage=s3://lab/x cannot be used: it does not answer \("):
        Storage("s3://lab/x").check()
    assert time.monotonic() - started_s < 15


def test_a_server_of_ones_own_needs_no_region(silent_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Storage("s3://lab/x")._files.region == "us-east-1"
    assert Storage("s3://lab/x?region=eu-west-1")._files.region == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert Storage("s3://lab/x?scheme=http")._files.region == "eu-central-1"


def test_amazons_own_endpoints_get_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://bucket.vpce-1.s3.eu-central-1.vpce.amazonaws.com")
    assert _with_region("s3://lab/x") == "s3://lab/x"
    assert _with_region("s3://lab/x?endpoint_override=s3.lab:8333") != "s3://lab/x?endpoint_override=s3.lab:8333"


@pytest.mark.parametrize(
    ("uri", "names", "expected"),
    [
        ("s3://lab/x", ["AWS_ENDPOINT_URL"], "AWS_ENDPOINT_URL"),
        ("s3://lab/x", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"], "AWS_ENDPOINT_URL_S3"),
        ("s3://lab/x", [], "AWS_ENDPOINT_URL"),
        ("s3://lab/x?endpoint_override=s3.lab:8333", ["AWS_ENDPOINT_URL"], "the server at s3.lab:8333"),
        ("gs://lab/x", ["AWS_ENDPOINT_URL"], "the account"),
        ("abfs://lab/x", [], "the account"),
    ],
)
def test_another_bucket_of_the_same_name_has_its_cause_named(
    monkeypatch: pytest.MonkeyPatch, uri: str, names: list[str], expected: str
) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, "http://s3.lab")
    assert other_bucket_hint(uri) == f"is {expected} that of the command"


@pytest.mark.parametrize("patience_s", [0.0, 0.3])
def test_a_folder_that_hangs_is_named_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    class Hanging(LocalFileSystem):  # type: ignore[misc]
        def get_file_info(self, _: object) -> None:
            asked.append(1)
            ended.wait()

    ended, asked = threading.Event(), list[int]()
    monkeypatch.setattr(storage_module, "RETRY_EVERY_S", 0.01)
    monkeypatch.setattr(storage_module, "CHECK_S", 0.2)
    storage = Storage(str(tmp_path))
    storage._files = Hanging()
    with pytest.raises(StorageUnavailableError, match=r"it does not answer \(no answer within 0\.\d s\)"):
        storage.check(patience_s=patience_s)
    assert len(asked) == 1
    ended.set()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNREFUSED])
def test_a_shared_folder_that_is_away_may_come_back(tmp_path: Path, number: int) -> None:
    class Away(LocalFileSystem):  # type: ignore[misc]
        def get_file_info(self, _: object) -> None:
            raise OSError(number, os.strerror(number))

    storage = Storage(str(tmp_path))
    storage._files = Away()
    with pytest.raises(StorageUnavailableError, match=rf"it does not answer \({os.strerror(number)}\)"):
        storage.exists("x")
