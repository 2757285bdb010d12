"""The queue and thread of a `RunWriter`: writes in order, tries again, keeps the first failure."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import final

from muralab.errors import StoreError
from muralab.tracking.operations import HANDLE, Call, Operation, Starting, joined, merged
from muralab.tracking.store import Store, store_error

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
GATHER_S = 1.0
PERMANENT_CODES = frozenset(
    ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE", "NOT_FOUND",
     "PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED")
)  # fmt: skip


@final
class Outbox:
    """Operations on their way to a store."""

    def __init__(self, store: Store, *, patience_s: float) -> None:
        self._store, self._patience_s = store, patience_s
        self._queue: queue.SimpleQueue[tuple[str, Operation] | threading.Event] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="run-writer", daemon=True)
        self._ids: dict[str, str] = {}
        self._error: StoreError | None = None
        self._given_up = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def thread_ident(self) -> int:
        """The thread's identifier; 0 before `start`."""
        return self._thread.ident or 0

    def put(self, run: str, operation: Operation, *, check: bool = True) -> None:
        """Queue an operation on a run, after raising what went wrong before it."""
        if check:
            self.check()
        self._queue.put((run, operation))

    def check(self) -> None:
        """Raise the first failure, if there is one."""
        if self._error is not None:
            raise StoreError(str(self._error)) from self._error.__cause__

    def id_of(self, run: str) -> str | None:
        """A run's id; None while it has not been started."""
        return self._ids.get(run) if run.startswith(HANDLE) else run

    def flush(self) -> None:
        """Wait until all that is queued is written or given up."""
        self._wait(threading.Event())

    def stop(self) -> None:
        """As `flush`, and end the thread."""
        if self._thread.is_alive():
            self._wait(self._stopped)
            self._thread.join()
        self.check()

    def _wait(self, mark: threading.Event) -> None:
        self._queue.put(mark)
        while not mark.wait(0.5):
            if not self._thread.is_alive():
                raise RuntimeError("the writer of runs is not running: use it in a `with` block")
        self.check()

    def _work(self) -> None:
        written_s = -GATHER_S
        while not self._stopped.is_set():
            items = [self._queue.get()]
            # Epochs of less than a second share a write; the first after a pause is written at once, and so is a mark.
            while not isinstance(items[-1], threading.Event):
                try:
                    items.append(self._queue.get(timeout=max(0.0, written_s + GATHER_S - time.monotonic())))
                except queue.Empty:
                    break
            self._write_items(items)
            written_s = time.monotonic()

    def _write_items(self, items: Sequence[tuple[str, Operation] | threading.Event]) -> None:
        """Write what has gathered, run by run; a mark is set when all before it is done."""
        gathered: dict[str, list[Operation]] = {}
        for item in items:
            if isinstance(item, threading.Event):
                self._write_runs(gathered)
                gathered = {}
                item.set()
            else:
                gathered.setdefault(item[0], []).append(item[1])
        self._write_runs(gathered)

    def _write_runs(self, gathered: dict[str, list[Operation]]) -> None:
        for run, operations in gathered.items():
            for group in merged(operations):
                self._write_group(run, group)

    def _write_group(self, run: str, group: list[Operation]) -> None:
        """Write a group at once; where that is refused, each operation alone, so that only the bad one is lost."""
        if self._given_up or not self._can_write(run, group[0]):
            return
        try:
            self._write(run, joined(group))
        except Exception as error:
            if len(group) > 1 and not self._given_up:
                for operation in group:
                    self._write_group(run, [operation])
            else:
                self._keep(run, group[0], error)

    def _can_write(self, run: str, operation: Operation) -> bool:
        """Whether the run exists; one that could not be started has had its failure kept."""
        return isinstance(operation, Starting) or self.id_of(run) is not None

    def _write(self, run: str, operation: Operation) -> None:
        """Write, trying again for as long as patience lasts; then the store is given up."""
        deadline_s = time.monotonic() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if isinstance(operation, Starting):
                    self._ids[run] = operation.start(self._store, self._ids)
                else:
                    operation(self._store.client, self._ids.get(run, run))
                return
            except Exception as error:
                if not is_passing(error):
                    raise
                if time.monotonic() + pause_s > deadline_s:
                    self._given_up = True
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _keep(self, run: str, operation: Operation, error: Exception) -> None:
        if self._error is not None:
            return
        doing = operation.what if isinstance(operation, Call | Starting) else "log metrics, params or tags"
        self._error = store_error(self._store, f"{doing} of the run {self._ids.get(run, run)}", error)
        if self._given_up:
            text = f"{self._error} It failed for {self._patience_s:g} s; what was queued after it is not written."
            self._error = StoreError(text)
        self._error.__cause__ = error


def is_passing(error: BaseException) -> bool:
    """Whether a failure may go away by itself: a server or network that is down, a locked database, a full disk."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, StoreError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MlflowException):
        return error.error_code not in PERMANENT_CODES
    # Every failure of the `requests` library is an OSError.
    lasting = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, lasting)
