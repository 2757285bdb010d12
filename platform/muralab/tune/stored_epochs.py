"""A trial's checkpoints in the storage of a cluster: uploaded after each epoch, fetched by whoever continues it.

Files in the trial's folder there, written by one attempt at the trial, in one process on one node:

    <attempt>-<epoch>-<file>     a file as it was after this epoch
    <attempt>-<epoch>.json       the epoch is complete: name, size and checksum of every file that belongs to it

The JSON file is written last, so an epoch without one is ignored, as is one whose files are missing or damaged. Each
attempt writes names of its own and removes only these: a node that was cut off and goes on training does no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from muralab.errors import StorageError, StorageMissingError
from muralab.storage import Storage, patiently
from muralab.training.trainer import LAST, EpochResult

KEPT_EPOCHS = 3
"""Complete epochs of an attempt that stay: training may be two ahead of what was reported, and reports are exact."""
WAITING_EPOCHS = 2
"""Epochs that may wait for their upload; then training waits, or the disk would fill."""
OUTAGE_S = 600.0
"""How long a storage that does not answer is waited for."""
LAG = 0.05
"""Share of an epoch's duration for which its report waits for the upload; after that it comes with the next one."""
MANIFEST = re.compile(r"(?P<attempt>[0-9a-f]{8})-(?P<epoch>\d{6})\.json")
UPLOADED = ("best_*.safetensors", "validation_*.csv", LAST)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of an epoch."""

    name: str
    """In the trial's folder of the storage."""
    n_bytes: int
    checksum: int
    """CRC-32 of its content."""


@dataclass(frozen=True, kw_only=True)
class StoredEpoch:
    """A complete epoch."""

    epoch: int
    """Over both phases, from 1."""
    manifest: str
    """The file that describes it."""


def stored_epochs(storage: Storage, folder: str) -> list[StoredEpoch]:
    """The complete epochs of a trial's folder, the last one first."""
    found = [match for name in storage.names(folder) if (match := MANIFEST.fullmatch(name))]
    epochs = [StoredEpoch(epoch=int(match["epoch"]), manifest=match[0]) for match in found]
    return sorted(epochs, key=lambda one: (-one.epoch, one.manifest))


def fetch_newest(storage: Storage, folder: str, into: Path) -> int:
    """Fetch the last epoch that is complete and undamaged.

    Args:
        storage: of the cluster.
        folder: of the trial there.
        into: the trial's folder on this machine; what it holds is replaced, but only by a whole epoch.

    Returns:
        The epoch; 0 where there is none.

    Raises:
        StorageUnavailableError: the storage does not answer.
    """
    for one in stored_epochs(storage, folder):
        with contextlib.suppress(_DamagedError):
            _fetch(storage, folder, one, into)
            return one.epoch
    return 0


def fetch_epoch(storage: Storage, folder: str, epoch: int, into: Path, *, without: Iterable[str] = ()) -> None:
    """Fetch one epoch; see `fetch_newest`.

    Raises:
        StorageMissingError: it is not there in full.
        StorageUnavailableError: the storage does not answer.
    """
    for one in stored_epochs(storage, folder):
        if one.epoch == epoch:
            with contextlib.suppress(_DamagedError):
                _fetch(storage, folder, one, into, set(without))
                return
    raise StorageMissingError(f"storage={storage.uri}: epoch {epoch} of {folder} is missing or damaged.")


class _DamagedError(Exception):
    """An epoch is not what was uploaded."""


def _fetch(storage: Storage, folder: str, epoch: StoredEpoch, into: Path, without: Collection[str] = ()) -> None:
    incoming = into / ".incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        storage.download(f"{folder}/{epoch.manifest}", incoming / epoch.manifest)
        described = json.loads((incoming / epoch.manifest).read_bytes())
        files = {name: StoredFile(**fields) for name, fields in described.items() if name not in without}
        for name, file in files.items():
            storage.download(f"{folder}/{file.name}", incoming / name)
            if (incoming / name).stat().st_size != file.n_bytes or _checksum(incoming / name) != file.checksum:
                raise _DamagedError
        for name in files:
            (incoming / name).replace(into / name)
    except (StorageMissingError, ValueError, TypeError) as error:
        raise _DamagedError from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


class EpochUploader:
    """Uploads a trial's files after each epoch, in a thread of its own; a context manager that ends it.

    A file is never written in place, so a hard link keeps it as it was after an epoch while training goes on.
    """

    def __init__(self, storage: Storage, folder: str, local: Path, *, uploaded: int = 0) -> None:
        """Start the thread.

        Args:
            storage: of the cluster.
            folder: of the trial there.
            local: the trial's folder on this machine.
            uploaded: the last epoch that the storage holds already.
        """
        self._storage, self._folder, self._local = storage, folder, local
        self._attempt = uuid.uuid4().hex[:8]
        self.uploaded = uploaded
        """The last epoch that is complete in the storage."""
        self._sent: dict[str, tuple[tuple[int, int, int], StoredFile]] = {}
        self._kept: deque[tuple[str, set[str]]] = deque()
        """The manifests of the epochs that are kept, with the names of the files that they need."""
        self._waiting: deque[tuple[int, Path]] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()

    def submit(self, epoch: int) -> None:
        """Upload the files as they are now.

        Raises:
            StorageError: an earlier upload has failed.
        """
        snapshot = self._local / f".epoch-{epoch:06}"
        shutil.rmtree(snapshot, ignore_errors=True)
        snapshot.mkdir(parents=True)
        for pattern in UPLOADED:
            for file in self._local.glob(pattern):
                os.link(file, snapshot / file.name)
        with self._changed:
            while len(self._waiting) >= WAITING_EPOCHS and self._failure is None:
                self._changed.wait()
            self._raise_failure()
            self._waiting.append((epoch, snapshot))
            self._changed.notify_all()

    def wait(self, epoch: int, limit_s: float | None = None) -> bool:
        """Wait until an epoch is complete in the storage; returns whether it is.

        Raises:
            StorageError: an upload has failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.uploaded >= epoch or self._failure is not None, limit_s)
            self._raise_failure()
            return self.uploaded >= epoch

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                epoch, snapshot = self._waiting[0]
            try:
                self._upload(epoch, snapshot)
            except BaseException as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self.uploaded = epoch
                if self._waiting:
                    self._waiting.popleft()
                self._changed.notify_all()

    def _upload(self, epoch: int, snapshot: Path) -> None:
        files = {file.name: self._upload_file(epoch, file) for file in sorted(snapshot.iterdir())}
        described = json.dumps({name: asdict(file) for name, file in files.items()}).encode()
        manifest = f"{self._attempt}-{epoch:06}.json"
        self._patiently(lambda: self._storage.write(f"{self._folder}/{manifest}", described))
        shutil.rmtree(snapshot, ignore_errors=True)
        self._kept.append((manifest, {file.name for file in files.values()}))
        self._remove_outdated()

    def _upload_file(self, epoch: int, file: Path) -> StoredFile:
        """Upload a file, unless it is the same as after the epoch before."""
        status = file.stat()
        state = (status.st_ino, status.st_mtime_ns, status.st_size)
        if file.name in self._sent and self._sent[file.name][0] == state:
            return self._sent[file.name][1]
        name = f"{self._attempt}-{epoch:06}-{file.name}"
        self._patiently(lambda: self._storage.upload(file, f"{self._folder}/{name}"))
        sent = StoredFile(name=name, n_bytes=status.st_size, checksum=_checksum(file))
        self._sent[file.name] = (state, sent)
        return sent

    def _remove_outdated(self) -> None:
        """Remove what only epochs need that are no longer kept; what cannot be removed stays."""
        while len(self._kept) > KEPT_EPOCHS:
            manifest, names = self._kept.popleft()
            outdated = names.difference(*(needed for _, needed in self._kept))
            with contextlib.suppress(StorageError):
                for name in (manifest, *sorted(outdated)):
                    self._storage.remove(f"{self._folder}/{name}")

    def _patiently(self, action: Callable[[], None]) -> None:
        patiently(action, OUTAGE_S, self._pause)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)
            if self._closed:
                raise StorageError("the trial has ended")


def keep_epochs(epochs: Generator[EpochResult], uploader: EpochUploader) -> Generator[EpochResult]:
    """The results of a training, each once its checkpoint is in the storage; training does not wait for that.

    So an epoch that was reported is never trained again, whatever happens to the node. Where an upload takes longer
    than a small part of the epoch, the result comes with the next one.
    """
    held: deque[EpochResult] = deque()
    with closing(epochs):
        for result in epochs:
            if result.global_epoch > uploader.uploaded:  # a resumed training first repeats what is stored
                uploader.submit(result.global_epoch)
            held.append(result)
            uploader.wait(result.global_epoch, LAG * result.seconds)
            while held and held[0].global_epoch <= uploader.uploaded:
                yield held.popleft()
        for result in held:
            uploader.wait(result.global_epoch)
            yield result
