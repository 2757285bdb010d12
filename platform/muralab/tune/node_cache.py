"""What a node keeps of a storage: fetched once by one of its trials, verified, and fetched again if it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from muralab.errors import StorageError
from muralab.locks import locked
from muralab.storage import Storage

State = tuple[tuple[str, int, int, int], ...]
_verified: set[State] = set()
"""By this process, which may train several trials of the same images."""


def fetch_intact(storage: Storage, files: Sequence[Path], cache: Path, is_intact: Callable[[], bool]) -> None:
    """Fetch files that belong together, unless this machine has them as they were written.

    Args:
        storage: of the cluster.
        files: in the order in which they are fetched; each has the same name in the storage as below the cache.
        cache: of this machine.
        is_intact: whether the files here, which exist, are what was written; reads all of them.

    Raises:
        StorageError: one is missing or damaged in the storage.
    """
    last = files[-1]
    last.parent.mkdir(parents=True, exist_ok=True)
    with locked(last.with_name(f"{last.name}.lock")):  # one trial of this machine fetches them for all
        exist = all(file.is_file() for file in files)
        if exist and (_state_of(files) in _verified or is_intact()):
            _verified.add(_state_of(files))
            return
        names = [file.relative_to(cache).as_posix() for file in files]
        for name, file in zip(names, files, strict=True):
            storage.download(name, file)
        if not is_intact():
            raise StorageError(
                f"storage={storage.uri}: {' or '.join(names)} is damaged there. Remove it from the storage and resume "
                "the sweep, which uploads it again."
            )
        _verified.add(_state_of(files))


def _state_of(files: Sequence[Path]) -> State:
    """What changes when a file is written."""
    found = [(str(file), file.stat()) for file in files]
    return tuple((path, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in found)
