"""What all machines of a cluster share: a folder on a common disk or in an object store, named by one URI.

Arrow opens folders, S3, Google Cloud Storage and Azure; any other URI goes to fsspec. Credentials come from the
environment of each machine (AWS_ACCESS_KEY_ID, ...) and never stand in the URI.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from muralab.atomic import atomic_path
from muralab.disk import disk_problem
from muralab.errors import StorageError, StorageMissingError, StorageUnavailableError
from muralab.storage_uri import check_uri, impatient, missing_hint, open_uri, other_bucket_hint
from muralab.time_limit import within

T = TypeVar("T")
OBJECT_STORES = ("s3", "gcs", "abfs")
"""Types of file systems in which a file appears when it is complete; in all others it is written beside and renamed."""
REFUSALS = ("ACCESS_DENIED", "SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID")
AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH)
"""What a folder of another machine gives while that is away."""
NETWORK = ("NETWORK_CONNECTION", "SLOW_DOWN", "REQUEST_TIMEOUT", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "HTTP 5")
RETRY_EVERY_S = 3.0
CHUNK_BYTES = 2**20
PLAIN_ETAG = re.compile(r"[0-9a-f]{32}(-1)?")
"""What S3 states of an object that was sent as a whole, or in one part: its MD5, or that of its MD5."""
CHECK_S = 10.0
"""How long a storage may take to answer when it is checked; Arrow alone would try for 100 s, and NFS forever."""


@dataclass(frozen=True)
class StoredFile:
    """A file in a storage."""

    name: str
    """Relative to the storage."""
    size: int
    """Bytes."""
    modified_ns: int
    """Time of its last change, ns since 1970; 0 where the storage does not report it."""


class Storage:
    """Files by names relative to one URI, such as `sweeps/<run>/plan.json`."""

    def __init__(self, uri: str, *, option: str = "storage") -> None:
        """Open a storage; nothing is read yet.

        Args:
            uri: an absolute path, or a URI such as s3://bucket/prefix?scheme=http&endpoint_override=host:8333.
            option: name of the command-line option, for error messages.

        Raises:
            SettingsError: nothing opens such a URI, or it holds credentials.
        """
        check_uri(uri, option)
        self.uri = uri
        self._given = f"{option}={uri}"
        self._states_other_digests = False
        self._files, root = open_uri(uri, option)
        self._root = root.rstrip("/")

    def split(self) -> tuple[Storage, str]:
        """The folder of the file that the URI names, and the file's name, without escapes such as %20."""
        folder = copy.copy(self)
        folder._root, _, name = self._root.rpartition("/")
        return folder, name

    @contextlib.contextmanager
    def witness(self) -> Iterator[str]:
        """The name of a new file, for as long as other machines find out whether theirs is the same storage.

        Raises:
            StorageError: it cannot be written.
        """
        name = f"probe-{uuid.uuid4().hex[:12]}"
        self.write(name, b"muralab")
        try:
            yield name
        finally:
            with contextlib.suppress(StorageError):
                self.remove(name)

    def check(self, witness: str = "", *, patience_s: float = 0.0) -> None:
        """Find out whether files can be written and read.

        Args:
            witness: a file with a name of its own that another machine has written, which must be here as well.
            patience_s: how long a storage that does not answer is waited for.

        Raises:
            StorageUnavailableError: it does not answer.
            StorageError: says what is missing: the bucket, the rights.
        """
        checked = copy.copy(self)
        checked._files = impatient(self._files)
        try:  # one thread for all attempts: a disk that hangs keeps what it has been asked
            within(patience_s + CHECK_S, lambda: patiently(lambda: checked._check(witness), patience_s))
        except TimeoutError as error:
            raise StorageUnavailableError(f"{self._given} cannot be used: it does not answer ({error}).") from error

    def _check(self, witness: str) -> None:
        probe = f"probe-{uuid.uuid4().hex[:12]}"
        with self._explaining("cannot be used"):
            # Some stores create a missing bucket at the first write: a typing error would go unnoticed.
            place = self._root.partition("/")[0] if self._files.type_name in OBJECT_STORES else self._root
            what = "folder" if self._files.type_name not in OBJECT_STORES else "bucket"
            if self._files.get_file_info(place).type.name == "NotFound":
                raise StorageError(f"{self._given}: there is no {what} {place}{missing_hint(self.uri)}.")
            if witness and not self._files.get_file_info(self._path(witness)).is_file:
                hint = "is it mounted" if what == "folder" else other_bucket_hint(self.uri)
                raise StorageError(f"{self._given}: this {what} is another one here: {hint}?")
            self._write(probe, b"muralab")
            found = self.read(probe)
            self._files.delete_file(self._path(probe))
        if found != b"muralab":
            raise StorageError(f"{self._given}: a file that was just written has another content.")

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder, without those of its own folders; none where it does not exist.

        Raises:
            StorageError: it cannot be listed.
        """
        files = [one.base_name for one in self._listed(folder) if one.is_file]
        return sorted(name for name in files if ".part-" not in name)

    def _listed(self, folder: str, *, recursive: bool = False) -> list[Any]:
        from pyarrow.fs import FileSelector

        path = self._path(folder).rstrip("/")
        with self._explaining(f"cannot list {folder}" if folder else "cannot be listed"):
            return list(self._files.get_file_info(FileSelector(path, allow_not_found=True, recursive=recursive)))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder; none where it does not exist.

        Raises:
            StorageError: it cannot be listed.
        """
        return sorted(one.base_name for one in self._listed(folder) if not one.is_file)

    def walk(self, folder: str) -> list[StoredFile]:
        """All files below a folder, at any depth; none where it does not exist.

        Raises:
            StorageError: it cannot be listed.
        """
        return [self._stored(one) for one in self._listed(folder, recursive=True) if one.is_file]

    def look_up(self, names: Sequence[str]) -> list[StoredFile]:
        """Those of some files that exist.

        Raises:
            StorageError: the storage cannot be read.
        """
        with self._explaining("cannot be read"):
            found = self._files.get_file_info([self._path(name) for name in names])
        return [self._stored(one) for one in found if one.is_file]

    def _stored(self, found: Any) -> StoredFile:
        return StoredFile(found.path.removeprefix(f"{self._root}/"), int(found.size or 0), int(found.mtime_ns or 0))

    def exists(self, name: str) -> bool:
        """Whether there is such a file, complete.

        Raises:
            StorageError: that cannot be found out.
        """
        with self._explaining(f"cannot look for {name}"):
            return bool(self._files.get_file_info(self._path(name)).is_file)

    def read(self, name: str) -> bytes:
        """The content of a small file.

        Raises:
            StorageError: it does not exist, or cannot be read.
        """
        with self._explaining(f"cannot read {name}"), self._files.open_input_stream(self._path(name)) as file:
            return bytes(file.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a small file: its readers see all of it, or none.

        Raises:
            StorageError: it cannot be written.
        """
        with self._explaining(f"cannot write {name}"):
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        def write(target: str) -> None:
            with self._files.open_output_stream(target) as file:
                file.write(content)

        self._publish(name, write)

    def upload(self, local: Path, name: str) -> None:
        """Copy a local file here: its readers see all of it, or none.

        Raises:
            StorageError: it cannot be written.
        """
        from pyarrow.fs import LocalFileSystem, copy_files

        def copy(target: str) -> None:
            copy_files(str(local), target, source_filesystem=LocalFileSystem(), destination_filesystem=self._files)

        with self._explaining(f"cannot write {name}"):
            self._publish(name, copy)

    def _publish(self, name: str, write: Callable[[str], None]) -> None:
        target = self._path(name)
        if self._files.type_name in OBJECT_STORES:
            write(target)
            return
        self._files.create_dir(target.rpartition("/")[0], recursive=True)
        temporary = f"{target}.part-{uuid.uuid4().hex[:8]}"
        try:
            write(temporary)
            self._files.move(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.delete_file(temporary)
            raise

    def download(self, name: str, local: Path) -> None:
        """Copy a file to this machine, atomically, and check its digest where S3 states one; its folder is created.

        Raises:
            StorageError: it does not exist, or cannot be read, or gives another content each time.
            OSError: the local disk is full or read-only.
        """
        local.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(local) as path, self._explaining(f"cannot read {name}", local=local):
            first, is_as_stated = self._copy(name, path)
            if is_as_stated or self._states_other_digests:
                return
            again, is_as_stated = self._copy(name, path)
            if not is_as_stated and again != first:
                raise StorageError(f"{self._given} cannot read {name}: it arrives damaged. Check the network.")
            # The same twice: a store that encrypts with keys of its own (SSE-KMS) states something else.
            self._states_other_digests = not is_as_stated

    def _copy(self, name: str, path: Path) -> tuple[str, bool]:
        """Copy a file to a path; returns its MD5, and whether that is what the store states, if it does."""
        digest = hashlib.md5(usedforsecurity=False)
        with self._files.open_input_stream(self._path(name)) as source, path.open("wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
                digest.update(chunk)
            stated = (source.metadata() or {}).get("ETag", b"").decode().strip('"')
        of_one_part = hashlib.md5(digest.digest(), usedforsecurity=False).hexdigest()
        is_known = PLAIN_ETAG.fullmatch(stated) is not None
        return digest.hexdigest(), not is_known or stated in (digest.hexdigest(), f"{of_one_part}-1")

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none.

        Raises:
            StorageError: it is still there.
        """
        with self._explaining(f"cannot remove {name}"), contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder with everything in it; nothing happens where there is none.

        Raises:
            StorageError: something of it is still there.
        """
        with self._explaining(f"cannot remove {name}"), contextlib.suppress(FileNotFoundError):
            self._files.delete_dir(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _explaining(self, what: str, local: Path | None = None) -> Iterator[None]:
        """Turn an error of the file system into a sentence that names the storage and the reason."""
        try:
            yield
        except OSError as error:
            if local is not None and disk_problem(error, local):
                raise
            raise self._explained(error, what) from error

    def _explained(self, error: OSError, what: str) -> StorageError:
        text = str(error)
        start = f"{self._given} {what}: "
        if isinstance(error, FileNotFoundError) or "NO_SUCH_BUCKET" in text:
            return StorageMissingError(f"{start}it does not exist.")
        if any(word in text for word in REFUSALS):
            refusal = next(word for word in REFUSALS if word in text).replace("_", " ").lower()
            return StorageError(
                f"{start}{refusal}. On every machine the environment must hold valid keys with read and write access "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3)."
            )
        if error.errno in AWAY or isinstance(error, ConnectionError):
            return StorageUnavailableError(f"{start}it does not answer ({error.strerror or text}).")
        if any(word in text for word in NETWORK):
            return StorageUnavailableError(f"{start}it does not answer ({text.rpartition('; Details: ')[2]}).")
        return StorageError(f"{start}{disk_problem(error) or error.strerror or text}")


def patiently(action: Callable[[], T], limit_s: float, wait: Callable[[float], object] = time.sleep) -> T:
    """Repeat an action while the storage does not answer.

    Args:
        action: what is done; harmless when done twice.
        limit_s: the error is raised once this much time has passed.
        wait: sleeps some seconds.

    Raises:
        StorageError: it failed for another reason, or for too long.
    """
    deadline_s = time.monotonic() + limit_s
    while True:
        try:
            return action()
        except StorageUnavailableError:
            if time.monotonic() + RETRY_EVERY_S > deadline_s:
                raise
            wait(RETRY_EVERY_S)
