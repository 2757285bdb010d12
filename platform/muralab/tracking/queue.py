"""The queue and thread of a `RunWriter`: batches, writes in order, retries, keeps the first failure."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from muralab.errors import StoreError
from muralab.tracking.runs import experiment_id_of, experiment_of, run_tags, search_runs
from muralab.tracking.store import Store, store_error
from muralab.tracking.stored_names import stored_tags, tag_filters
from muralab.tracking.tags import Tag

TEMPORARY_ID = "unstarted-"
"""What the id of a run begins with until the store has created the run."""
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
WRITE_INTERVAL_S = 1.0
PERMANENT_CODES = frozenset(
    ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE", "NOT_FOUND",
     "PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED")
)  # fmt: skip

Point = tuple[str, float, int, int]
"""Metric, value, step, Unix time in ms."""


@dataclass(frozen=True)
class Batch:
    """Metrics, params and tags of one run."""

    metrics: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    what = "log metrics, params or tags"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it, in as few calls as MLflow's limits allow: one for an epoch."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(key, value, at_ms, step) for key, value, step, at_ms in self.metrics]
        params = [Param(key, value) for key, value in self.params.items()]
        tags = [RunTag(key, value) for key, value in self.tags.items()]
        while metrics or params or tags:
            # A request may hold 1,000 entities in all: 1,000 metrics alone, or 800 with the most params and tags.
            n_metrics = MAX_METRICS - len(params[:MAX_PARAMS]) - len(tags[:MAX_TAGS])
            client.log_batch(run_id, metrics[:n_metrics], params[:MAX_PARAMS], tags[:MAX_TAGS], synchronous=True)
            metrics, params, tags = metrics[n_metrics:], params[MAX_PARAMS:], tags[MAX_TAGS:]


@dataclass(frozen=True)
class Call:
    """Any other call of MLflow's client."""

    do: Callable[[Any, str], Any]
    """A function of client and run id."""
    what: str
    """What it does, for the error message: "could not <what>"."""

    def __call__(self, client: Any, run_id: str) -> None:
        """Make the call."""
        self.do(client, run_id)


@dataclass(kw_only=True)
class StartRun:
    """The creation of a run; a temporary id stands for it until the store has given it an id."""

    experiment: str | None
    kind: str
    name: str
    tags: Mapping[str, object]
    parent: str | None
    temporary_id: str = field(default_factory=lambda: f"{TEMPORARY_ID}{uuid.uuid4().hex}")
    queued_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    attempted: bool = False

    @property
    def what(self) -> str:
        """What it does, for the error message."""
        return f"start '{self.name}'"

    def start(self, store: Store, ids: Mapping[str, str]) -> str:
        """Create the run, unless an earlier attempt did and only the response was lost.

        Args:
            store: where to create it.
            ids: temporary id -> id of the runs created so far.

        Returns:
            The run's id.
        """
        parent = ids.get(self.parent, self.parent) if self.parent else None
        experiment_id = experiment_of(store, parent) if parent else experiment_id_of(store, self.experiment)
        if self.attempted:
            created = search_runs(store, [experiment_id], tag_filters(Tag.STARTED_AS, self.temporary_id)[0])
            if created:
                return str(created[0].info.run_id)
        self.attempted = True
        tags = stored_tags(run_tags(self.kind, self.tags, parent) | {Tag.STARTED_AS: self.temporary_id})
        run = store.client.create_run(experiment_id, start_time=self.queued_ms, tags=tags, run_name=self.name)
        return str(run.info.run_id)


Operation = Batch | Call | StartRun


@final
class WriteQueue:
    """Operations waiting to be written to a store, and the thread that writes them."""

    def __init__(self, store: Store, *, patience_s: float) -> None:
        self._store, self._patience_s = store, patience_s
        self._queue: queue.SimpleQueue[tuple[str, Operation] | threading.Event] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="run-writer", daemon=True)
        self._ids: dict[str, str] = {}
        self._error: StoreError | None = None
        self._store_failed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def thread_ident(self) -> int:
        """The thread's identifier; 0 before `start`."""
        return self._thread.ident or 0

    def put(self, run: str, operation: Operation, *, check: bool = True) -> None:
        """Queue an operation on a run, after raising an earlier failure (unless `check` is false)."""
        if check:
            self.check()
        self._queue.put((run, operation))

    def check(self) -> None:
        """Raise the first failure, if there is one."""
        if self._error is not None:
            raise StoreError(str(self._error)) from self._error.__cause__

    def id_of(self, run: str) -> str | None:
        """A run's id; None while the store has not created the run."""
        return self._ids.get(run) if run.startswith(TEMPORARY_ID) else run

    def flush(self) -> None:
        """Wait until everything queued so far has been written or has failed; raise the first failure."""
        self._wait(threading.Event())

    def stop(self) -> None:
        """As `flush`, and end the thread."""
        if self._thread.is_alive():
            self._wait(self._stopped)
            self._thread.join()
        self.check()

    def _wait(self, reached: threading.Event) -> None:
        self._queue.put(reached)
        while not reached.wait(0.5):
            if not self._thread.is_alive():
                raise RuntimeError("The run writer is not running: use it in a `with` block.")
        self.check()

    def _work(self) -> None:
        written_s = -WRITE_INTERVAL_S
        while not self._stopped.is_set():
            items = [self._queue.get()]
            # Epochs shorter than a second share a write. The first one after a pause is written at once, and so is
            # everything as soon as somebody waits for it.
            while not isinstance(items[-1], threading.Event):
                try:
                    items.append(self._queue.get(timeout=max(0.0, written_s + WRITE_INTERVAL_S - time.monotonic())))
                except queue.Empty:
                    break
            self._write_items(items)
            written_s = time.monotonic()

    def _write_items(self, items: Sequence[tuple[str, Operation] | threading.Event]) -> None:
        """Write items run by run; an event is set when everything before it has been written."""
        pending: dict[str, list[Operation]] = {}
        for item in items:
            if isinstance(item, threading.Event):
                self._write_runs(pending)
                pending = {}
                item.set()
            else:
                pending.setdefault(item[0], []).append(item[1])
        self._write_runs(pending)

    def _write_runs(self, pending: Mapping[str, Sequence[Operation]]) -> None:
        for run, operations in pending.items():
            for group in group_batches(operations):
                self._write_group(run, group)

    def _write_group(self, run: str, group: Sequence[Operation]) -> None:
        """Write a group in one call; if that is refused, each operation alone, so that only the invalid one is lost."""
        # A run that could not be created has no id; its failure has been kept.
        if self._store_failed or not (isinstance(group[0], StartRun) or self.id_of(run)):
            return
        try:
            self._write(run, merge_group(group))
        except Exception as error:
            if len(group) > 1 and not self._store_failed:
                for operation in group:
                    self._write_group(run, [operation])
            else:
                self._keep_error(run, group[0], error)

    def _write(self, run: str, operation: Operation) -> None:
        """Write, and retry until `patience_s` is over; after that nothing more is written."""
        deadline_s = time.monotonic() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if isinstance(operation, StartRun):
                    self._ids[run] = operation.start(self._store, self._ids)
                else:
                    operation(self._store.client, self._ids.get(run, run))
                return
            except Exception as error:
                if not is_temporary(error):
                    raise
                if time.monotonic() + pause_s > deadline_s:
                    self._store_failed = True
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _keep_error(self, run: str, operation: Operation, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = store_error(self._store, f"{operation.what} of the run {self._ids.get(run, run)}", error)
        if self._store_failed:
            text = f"{self._error} It failed for {self._patience_s:g} s; everything queued after it was not written."
            self._error = StoreError(text)
        self._error.__cause__ = error


def group_batches(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """The operations of one run in order, adjacent batches as one group that can be written in one call."""
    group: list[Operation] = []
    for operation in operations:
        if group and not (isinstance(operation, Batch) and isinstance(group[-1], Batch)):
            yield group
            group = []
        group.append(operation)
    if group:
        yield group


def merge_group(group: Sequence[Operation]) -> Operation:
    """One operation for a group of `group_batches`; of two values of a tag the later one is kept."""
    if len(group) == 1:
        return group[0]
    batches = [operation for operation in group if isinstance(operation, Batch)]
    return Batch(
        metrics=[point for batch in batches for point in batch.metrics],
        params={key: value for batch in batches for key, value in batch.params.items()},
        tags={key: value for batch in batches for key, value in batch.tags.items()},
    )


def is_temporary(error: BaseException) -> bool:
    """Whether a retry may succeed: a server or network that is down, a locked database, a full disk."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, StoreError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MlflowException):
        return error.error_code not in PERMANENT_CODES
    # Every failure of the `requests` library is an OSError.
    permanent = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, permanent)
