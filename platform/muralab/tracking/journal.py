"""The journal of a command: what is to be written to a store, on disk before it is sent, so that nothing is lost.

One folder per command: `journal.jsonl`, appended to only, and under `files/` the artifacts that wait. The folder is
removed once everything is written. A line is a header, an entry, or what has become of entries:

    {"store": "sqlite:////lab/mlflow.db", "command": "tune", "process": {...}}
    {"n": 1, "run": "unstarted-0a...", "write": {"kind": "StartRun", ...}}
    {"run": "unstarted-0a...", "id": "3f..."}
    {"done": [1]}
    {"refused": 2, "why": "..."}
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

from muralab.atomic import atomic_path
from muralab.locks import Lock, LockState
from muralab.redaction import redact
from muralab.tracking.operations import Operation, from_json, to_json
from muralab.tracking.process import is_alive, process_tags

LOG = logging.getLogger("muralab.tracking")
NAME, LOCK, FILES = "journal.jsonl", "lock", "files"


@dataclass(frozen=True)
class Entry:
    """One operation on one run."""

    number: int
    run: str
    """Its id, or the temporary one."""
    operation: Operation


@final
class Journal:
    """A journal that this process writes; use it from one thread at a time, except for `add`."""

    def __init__(self, folder: Path, lock: Lock, last: int) -> None:
        self.folder, self._lock, self._last = folder, lock, last
        self._file = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._writing = threading.Lock()
        self._unsynced, self._closing = threading.Event(), False
        self._failed = False
        self._thread = threading.Thread(target=self._sync, name="journal-sync", daemon=True)
        self._thread.start()

    @classmethod
    def create(cls, parent: Path, *, store_uri: str, command: str) -> Self:
        """Start a journal in a new folder below `parent`.

        Raises:
            OSError: it cannot be written there.
        """
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{command}-{uuid.uuid4().hex[:8]}"
        folder = parent / name
        folder.mkdir(parents=True, mode=0o700)
        journal = cls(folder, Lock(folder / LOCK), 0)
        journal._append({"store": redact(store_uri), "command": command, "process": process_tags()})
        return journal

    @classmethod
    def reopen(cls, folder: Path) -> tuple[Self, Content] | None:
        """A journal that another process has left, with what it holds; None while that process runs."""
        lock = Lock(folder / LOCK)
        if lock.state is LockState.TAKEN:
            return None
        content = read_journal(folder)
        if lock.state is LockState.UNSUPPORTED and is_alive(content.process):
            return None
        journal = cls(folder, lock, max([0, *content.entries]))
        os.write(journal._file, b"\n")  # ends a line that was cut off
        return journal, content

    def add(self, run: str, operation: Operation) -> Entry:
        """Append an operation. It is in the file when this returns, and on the disk shortly afterwards."""
        with self._writing:
            self._last += 1
            entry = Entry(self._last, run, operation)
            self._write({"n": entry.number, "run": run, "write": to_json(operation)})
        return entry

    def keep_file(self, path: Path) -> Path:
        """A file's content as it is now: a link to it, or a copy where there can be none; its own path on a full disk.

        Raises:
            FileNotFoundError: there is no such file.
        """
        folder = self.folder / FILES / uuid.uuid4().hex[:12]
        kept = folder / path.name
        if not path.is_file():
            raise FileNotFoundError(path)
        try:
            folder.mkdir(parents=True)
            try:
                os.link(path, kept)
            except OSError:  # on another file system
                shutil.copyfile(path, kept)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._report(error)
            return path
        return kept

    def started(self, run: str, run_id: str) -> None:
        """Remember the id of a run that the store has created."""
        self._append({"run": run, "id": run_id})

    def done(self, entries: Sequence[Entry]) -> None:
        """Mark entries as written, and remove their files."""
        self._append({"done": [entry.number for entry in entries]}, flush=False)  # it may be written again
        for entry in entries:
            self._remove_file(entry)

    def refused(self, entry: Entry, why: str) -> None:
        """Mark an entry as refused; it stays in the journal, for `muralab sync`."""
        self._append({"refused": entry.number, "why": why})

    def close(self, *, finished: bool) -> None:
        """Release the journal. Its folder is removed if everything is written; else the file is cut to what is left."""
        self._closing = True
        self._unsynced.set()
        self._thread.join()
        os.close(self._file)
        if finished:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # on a full disk it stays as long as it is
                _compact(self.folder)
        self._lock.release()

    @property
    def thread_ident(self) -> int:
        """The identifier of the thread that flushes to the disk, to measure its CPU time."""
        return self._thread.ident or 0

    def _append(self, record: Mapping[str, Any], *, flush: bool = True) -> None:
        with self._writing:
            self._write(record, flush=flush)

    def _write(self, record: Mapping[str, Any], *, flush: bool = True) -> None:
        data = f"{json.dumps(record)}\n".encode()
        size = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, size)  # of half a line
            self._report(error)
        if flush:
            self._unsynced.set()

    def _report(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            LOG.warning(
                "The journal %s cannot be written (%s): if the tracking store fails as well, what is logged until then "
                "is lost. Free some space there.",
                self.folder,
                error.strerror or error,
            )

    def _sync(self) -> None:
        """Flush what has been appended to the disk, from a thread of its own: training does not wait for a disk."""
        while not self._closing:
            self._unsynced.wait()
            self._unsynced.clear()
            with contextlib.suppress(OSError):
                os.fsync(self._file)

    def _remove_file(self, entry: Entry) -> None:
        file = getattr(entry.operation, "file", None)
        if file and (self.folder / FILES) in Path(file).parents:
            shutil.rmtree(Path(file).parent, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a journal holds."""

    store: str
    """Its address, without secrets."""
    command: str
    process: Mapping[str, str]
    """Tags of the process that wrote it."""
    entries: Mapping[int, Entry]
    """All that are not written, by number."""
    refused: Mapping[int, str]
    """Why some of them were refused."""
    ids: Mapping[str, str]
    """Temporary id -> id of the runs that the store has created."""
    damaged: int = 0
    """Lines that cannot be read."""


def read_journal(folder: Path) -> Content:
    """Read a journal; the last line of a process that was killed while it wrote is left out."""
    header: Mapping[str, Any] = {}
    entries: dict[int, Entry] = {}
    refused: dict[int, str] = {}
    ids: dict[str, str] = {}
    damaged = 0
    for record in _records(folder / NAME):
        try:
            if "write" in record:
                entries[record["n"]] = Entry(record["n"], record["run"], from_json(record["write"]))
            elif "done" in record:
                for number in record["done"]:
                    entries.pop(number, None)
                    refused.pop(number, None)
            elif "refused" in record:
                refused[record["refused"]] = record["why"]
            elif "id" in record:
                ids[record["run"]] = record["id"]
            else:
                header = record
        except (KeyError, TypeError):
            damaged += 1
    return Content(
        store=header.get("store", ""),
        command=header.get("command", ""),
        process=header.get("process", {}),
        entries=entries,
        refused=refused,
        ids=ids,
        damaged=damaged,
    )


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in filter(str.strip, lines):
            try:
                record = json.loads(line)
            except ValueError:
                if not line.endswith("\n"):  # cut off
                    return
                record = {"write": None}  # counted as damaged
            yield record if isinstance(record, dict) else {"write": None}


def find_journals(parent: Path) -> list[Path]:
    """The folders of all journals, oldest first."""
    return sorted(path.parent for path in parent.glob(f"*/{NAME}"))


def _compact(folder: Path) -> None:
    """Write a journal anew with what is left in it."""
    content = read_journal(folder)
    records: list[Mapping[str, Any]] = [
        {"store": content.store, "command": content.command, "process": content.process},
        *({"run": run, "id": run_id} for run, run_id in content.ids.items()),
        *({"n": one.number, "run": one.run, "write": to_json(one.operation)} for one in content.entries.values()),
        *({"refused": number, "why": why} for number, why in content.refused.items()),
    ]
    with atomic_path(folder / NAME, sync=True) as path:
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
