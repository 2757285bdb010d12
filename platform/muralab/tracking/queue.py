"""The queue and thread of a `RunWriter`: in order, waiting for a store that is away, one refused item at a time.

A failed write is one of three things. The store does not answer: everything waits, however long training goes on. It
answers, but this request fails: artifacts are put off and tried again later, anything else is tried again in place. It
refuses: the item is lost to the store, its reason is kept, and the next one follows.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from muralab.console import format_duration
from muralab.errors import StoreError, StoreUnavailableError
from muralab.redaction import redact
from muralab.tracking.failures import is_busy, is_temporary, reason_of, remedy, shorten
from muralab.tracking.journal import Entry, Journal
from muralab.tracking.operations import TEMPORARY_ID, Batch, EndRun, LogFile, LogText, Operation, StartRun, Writing
from muralab.tracking.outage import ANNOUNCED_AFTER_S, LOG, LONGEST_PAUSE_S, PATIENCE_S, Pauses, outage_of
from muralab.tracking.refusals import Refusal
from muralab.tracking.store import Store
from muralab.tracking.tags import Tag

WRITE_INTERVAL_S = 1.0
POLL_S = 0.2
HUNG_AFTER_S = 120.0
"""A request that takes longer than any timeout of MLflow's client: a connection that is dead without an error."""
LEAVE_S = 5.0
"""How long the thread may take to leave once the store has been given up."""
ARTIFACTS = (LogText, LogFile)
MAX_TAG_CHARACTERS = 8000


@dataclass
class _Failing:
    """An item that fails although the store answers."""

    what: str
    since_s: float | None = None
    announced: bool = False

    def lasts_s(self, error: Exception, patience_s: float) -> float:
        """For how long it has failed; says so once."""
        self.since_s = time.monotonic() if self.since_s is None else self.since_s
        lasts_s = time.monotonic() - self.since_s
        if lasts_s > ANNOUNCED_AFTER_S and not self.announced:
            self.announced = True
            LOG.warning(
                "Could not %s yet (%s); this is tried again for up to %s.",
                self.what,
                reason_of(error),
                format_duration(patience_s),
            )
        return lasts_s


@dataclass
class _PutOff:
    """An artifact that is tried again later."""

    entry: Entry
    failing: _Failing
    pauses: Pauses
    next_s: float = 0.0
    """On the monotonic clock."""


@final
class WriteQueue:
    """Operations waiting to be written to a store, and the thread that writes them."""

    def __init__(self, store: Store, *, patience_s: float = PATIENCE_S, journal: Journal | None = None) -> None:
        """Make a queue.

        Args:
            store: where to write.
            patience_s: how long `flush` waits for a store that does not answer, and how long one item is tried that
                fails although the store answers.
            journal: keeps what is queued until it is written; None: in memory only.
        """
        self._store, self._patience_s, self.journal = store.impatient(), patience_s, journal
        self._item_patience_s = patience_s
        self._outage = outage_of(store.uri)
        self._queue: queue.SimpleQueue[Entry | threading.Event] = queue.SimpleQueue()
        self._stopped, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="run-writer", daemon=True)
        self._ids: dict[str, str] = {}
        self._starts: dict[str, StartRun] = {}
        self._unstarted: dict[str, str] = {}
        self._put_off: list[_PutOff] = []
        self._counting = threading.Lock()
        self._waiting = 0
        self._gave_up_s: float | None = None
        self._asked_s: float | None = None
        self._last_error: Exception | None = None
        self.refusals: list[Refusal] = []

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def thread_ident(self) -> int:
        """The thread's identifier; 0 before `start`."""
        return self._thread.ident or 0

    def put(self, run: str, operation: Operation) -> None:
        """Queue an operation on a run; it is in the journal when this returns."""
        self._queue.put(self._new_entry(run, operation))

    def _new_entry(self, run: str, operation: Operation) -> Entry:
        self._count(1)
        return Entry(0, run, operation) if self.journal is None else self.journal.add(run, operation)

    def replay(self, entries: Iterable[Entry], ids: Mapping[str, str]) -> None:
        """Queue what a journal of another process holds; call it before `start`.

        Args:
            entries: in their order.
            ids: temporary id -> id of the runs that are created already.
        """
        self._ids.update(ids)
        for entry in entries:
            self._count(1)
            self._queue.put(entry)

    def id_of(self, run: str) -> str | None:
        """A run's id; None while the store has not created the run."""
        return self._ids.get(run) if run.startswith(TEMPORARY_ID) else run

    @property
    def waiting(self) -> int:
        """How many operations are neither written nor refused."""
        return self._waiting

    def flush(self, patience_s: float | None = None, *, item_patience_s: float | None = None) -> None:
        """Wait until everything queued so far has been written or refused.

        Args:
            patience_s: how long to wait for a store that does not answer; None: the queue's own.
            item_patience_s: how long one item is tried meanwhile that fails although the store answers; likewise.

        Raises:
            StoreError: the store did not answer for that long. What is queued stays in the journal.
        """
        if item_patience_s is not None:
            self._item_patience_s = item_patience_s
        try:
            self._wait(threading.Event(), self._patience_s if patience_s is None else patience_s)
        finally:
            self._item_patience_s = self._patience_s

    def stop(self, patience_s: float | None = None, *, keep: bool = False) -> None:
        """As `flush`, and end the thread and the journal.

        Args:
            patience_s: as for `flush`.
            keep: whether the journal holds more than this queue was given.
        """
        try:
            if self._thread.is_alive():
                self._wait(self._stopped, self._patience_s if patience_s is None else patience_s)
        finally:
            self._given_up.set()
            if self._thread.ident is not None:
                self._thread.join(LEAVE_S)
            if self.journal is not None and not self._thread.is_alive():
                self.journal.close(finished=not (keep or self._waiting or self.refusals))

    def _wait(self, reached: threading.Event, patience_s: float) -> None:
        started_s = time.monotonic()
        self._queue.put(reached)
        while not reached.wait(POLL_S):
            if not self._thread.is_alive():
                raise RuntimeError("The run writer is not running: use it in a `with` block.")
            since_s = self._away_since_s()
            patient_s = 0.0 if since_s == self._gave_up_s else patience_s  # nobody waits twice for one outage
            if since_s is not None and time.monotonic() - max(started_s, since_s) > patient_s:
                self._gave_up_s = since_s
                raise self._give_up(time.monotonic() - since_s)

    def _away_since_s(self) -> float | None:
        """When the store stopped to answer: the outage's start, or that of a request that hangs."""
        if self._outage.since_s is not None:
            return self._outage.since_s
        asked_s = self._asked_s
        return asked_s if asked_s is not None and time.monotonic() - asked_s > HUNG_AFTER_S else None

    def _give_up(self, lasted_s: float) -> StoreError:
        error = self._last_error or ConnectionError("no answer")
        kept = "What was to be written to it is lost."
        if self.journal is not None:
            kept = (
                f"{self._waiting} writes are kept in {self.journal.folder}: once the store answers, the next command "
                "writes them, or `muralab sync` does."
            )
        message = (
            f"The tracking store {redact(self._store.uri)} has not answered for {format_duration(lasted_s)}: "
            f"{reason_of(error)} ({type(error).__name__}). {remedy(self._store.uri, error)} {kept}"
        )
        failure = StoreUnavailableError(message)
        failure.__cause__ = error
        return failure

    def _count(self, change: int) -> None:
        with self._counting:
            self._waiting += change

    # In the thread

    def _work(self) -> None:
        written_s = -WRITE_INTERVAL_S
        while not (self._stopped.is_set() or self._given_up.is_set()):
            items = self._next_items(written_s)
            self._write_items(items)
            self._try_put_off()
            written_s = time.monotonic()

    def _next_items(self, written_s: float) -> list[Entry | threading.Event]:
        """What to write next; nothing where only artifacts that were put off are due."""
        try:
            items = [self._queue.get(timeout=LONGEST_PAUSE_S if self._put_off else None)]
        except queue.Empty:
            return []
        # Epochs shorter than a second share a write. The first one after a pause is written at once, and so is
        # everything as soon as somebody waits for it.
        while not isinstance(items[-1], threading.Event):
            try:
                items.append(self._queue.get(timeout=max(0.0, written_s + WRITE_INTERVAL_S - time.monotonic())))
            except queue.Empty:
                break
        return items

    def _write_items(self, items: Sequence[Entry | threading.Event]) -> None:
        """Write items run by run; an event is set when everything before it has been written or refused."""
        pending: dict[str, list[Entry]] = {}
        for item in items:
            if isinstance(item, threading.Event):
                self._write_runs(pending)
                pending = {}
                while self._put_off and not self._given_up.wait(POLL_S):
                    self._try_put_off()
                if not self._given_up.is_set():
                    item.set()
            else:
                pending.setdefault(item.run, []).append(item)
        self._write_runs(pending)

    def _write_runs(self, pending: Mapping[str, Sequence[Entry]]) -> None:
        for entries in pending.values():
            for group in group_batches(entries):
                self._write_group(group)

    def _write_group(self, group: Sequence[Entry]) -> None:
        """Write a group in one call; if that is refused, each operation alone, so that only the invalid one is lost."""
        error = self._attempt(group)
        if error is None:
            return
        if len(group) > 1:
            for entry in group:
                self._write_group([entry])
        else:
            self._refuse(group[0], error)

    def _attempt(self, group: Sequence[Entry]) -> Exception | None:
        """Write until that succeeds, or it is put off or the store given up; the error where it is refused."""
        pauses, failing = Pauses(), _Failing(group[0].operation.what)
        while not self._given_up.is_set():
            try:
                self._perform(group)
                return None
            except Exception as error:
                self._last_error = error
                if not is_temporary(error):
                    return error
                if self._answers(error):
                    if isinstance(group[0].operation, ARTIFACTS):
                        self._put_off.append(_PutOff(group[0], failing, pauses))
                        return None
                    if failing.lasts_s(error, self._item_patience_s) > self._item_patience_s:
                        return error
            self._given_up.wait(pauses.next_s())
        return None

    def _perform(self, group: Sequence[Entry]) -> None:
        run = group[0].run
        operation = merge_group([entry.operation for entry in group])
        if run in self._unstarted:
            raise StoreError(f"The run could not be started: {self._unstarted[run]}")
        if isinstance(operation, StartRun):
            self._starts[run] = operation
            self._ids[run] = operation.start(self._store, self._ids)
            if self.journal is not None:
                self.journal.started(run, self._ids[run])
        else:
            self._asked_s = None if isinstance(operation, ARTIFACTS) else time.monotonic()  # an upload may take long
            try:
                operation(self._store.client, self._ids.get(run, run))
            finally:
                self._asked_s = None
        self._outage.answered()
        if isinstance(operation, EndRun):
            self._remove_doubles(run)
        self._settle(group)

    def _settle(self, group: Sequence[Entry]) -> None:
        self._count(-len(group))
        if self.journal is not None:
            self.journal.done(group)

    def _answers(self, error: Exception) -> bool:
        """Whether the store answers although a request has just failed."""
        if not is_busy(error):
            with contextlib.suppress(Exception):
                self._store.client.search_experiments(max_results=1)
                self._outage.answered()
                return True
        self._outage.failed(error)
        return False

    def _remove_doubles(self, run: str) -> None:
        """Delete runs that a request created whose answer came too late: another attempt had created one as well."""
        temporary_id = next((key for key, run_id in self._ids.items() if run_id == run), run)
        start = self._starts.pop(temporary_id, None)
        if start is None or start.attempts < 2:
            return
        with contextlib.suppress(Exception):
            run_id = self._ids[temporary_id]
            experiment_id = self._store.client.get_run(run_id).info.experiment_id
            for other in start.created(self._store, experiment_id):
                if other != run_id:
                    self._store.client.delete_run(other)

    def _try_put_off(self) -> None:
        """Try the artifacts again that are due; refuse those that have failed for too long."""
        for one in [one for one in self._put_off if one.next_s <= time.monotonic()]:
            if self._given_up.is_set():
                return
            try:
                self._perform([one.entry])
            except Exception as error:
                self._last_error = error
                one.next_s = time.monotonic() + one.pauses.next_s()
                if is_temporary(error):
                    lasts_s = one.failing.lasts_s(error, self._item_patience_s) if self._answers(error) else 0.0
                    if lasts_s <= self._item_patience_s:
                        continue
                self._refuse(one.entry, error)
            self._put_off.remove(one)

    def _refuse(self, entry: Entry, error: Exception) -> None:
        self._count(-1)
        operation, reason = entry.operation, reason_of(error)
        run_id = self._ids.get(entry.run, entry.run)
        advice = remedy(self._store.uri, error)
        self.refusals.append(Refusal(run=run_id, what=operation.what, reason=reason, remedy=advice))
        if self.journal is not None:
            self.journal.refused(entry, reason)
        if isinstance(operation, StartRun):
            self._unstarted[entry.run] = reason
        noted = operation.parent if isinstance(operation, StartRun) else entry.run
        if noted is not None and self.id_of(noted) is not None:
            self._note_refusals(noted, run_id)

    def _note_refusals(self, run: str, refused: str) -> None:
        """Set the tag that says what is missing; it waits for the store like anything else."""
        own = "; ".join(f"could not {one.what}: {one.reason}" for one in self.refusals if one.run == refused)
        note = self._new_entry(run, Batch(tags={Tag.NOT_LOGGED: shorten(own, MAX_TAG_CHARACTERS)}))
        if self._attempt([note]) is not None:  # refused as well, such as everything of a run that was deleted
            self._settle([note])


def group_batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The operations on one run in order, adjacent batches as one group that can be written in one call."""
    group: list[Entry] = []
    for entry in entries:
        if group and not (isinstance(entry.operation, Batch) and isinstance(group[-1].operation, Batch)):
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def merge_group(group: Sequence[Operation]) -> Writing | StartRun:
    """One operation for a group of `group_batches`; of two values of a tag the later one is kept."""
    if len(group) == 1:
        return group[0]
    batches = [operation for operation in group if isinstance(operation, Batch)]
    return Batch(
        metrics=[point for batch in batches for point in batch.metrics],
        params={key: value for batch in batches for key, value in batch.params.items()},
        tags={key: value for batch in batches for key, value in batch.tags.items()},
    )
