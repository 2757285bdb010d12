"""The writer of runs: callers queue, a thread writes, and no failure is lost.

Every method returns at once unless its docstring says that it waits. What fails for good is raised as a StoreError by
the caller's next call, by `flush` and at the end of the `with` block, which also ends every run that is still open.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, final

import pandas as pd

from muralab.errors import StoreError
from muralab.tracking.artifacts import fingerprint_test_set
from muralab.tracking.operations import HANDLE, Batch, Call, Starting, end_run, log_file, log_input, log_table
from muralab.tracking.queue import Outbox
from muralab.tracking.records import read_histories
from muralab.tracking.runs import adopt_run, clean_tags
from muralab.tracking.store import Store, shorten, store_error
from muralab.tracking.tags import RESOLVED, Tag

MAX_PARAM_CHARACTERS = 6000


@final
class RunWriter:
    """Writes any number of runs of one store, side by side; a context manager.

    At its end everything queued has been written, and runs that it started, adopted or resumed and that nobody
    finished are ended: KILLED after KeyboardInterrupt or SystemExit, else FAILED.
    """

    def __init__(self, store: Store, *, patience_s: float = 60.0) -> None:
        """Make a writer.

        Args:
            store: where to.
            patience_s: for how long a write that fails for a passing reason is tried again.
        """
        self._store = store
        self._outbox = Outbox(store, patience_s=patience_s)
        self._open: dict[str, None] = {}
        self._seen: dict[str, set[tuple[str, int]]] = {}
        self._params: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        self._outbox.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        try:
            self.close(status="KILLED" if stopped else "FAILED")
        except StoreError as own:
            if error is None:
                raise
            if str(own) != str(error):
                error.add_note(str(own))

    def close(self, *, status: str = "FAILED") -> None:
        """As `end_open_runs`, and stop the thread."""
        try:
            self.end_open_runs(status)
        finally:
            self._outbox.stop()

    def end_open_runs(self, status: str) -> None:
        """End the runs that are open, and wait until all is written; StoreError where something could not be."""
        for run in list(self._open):
            self._end(run, status)
        self.flush()

    def flush(self) -> None:
        """Wait until everything queued so far is written; StoreError where something could not be."""
        self._outbox.flush()

    def start_run(
        self,
        *,
        experiment: str | None = None,
        kind: str,
        name: str,
        tags: Mapping[str, object] | None = None,
        parent: str | None = None,
    ) -> str:
        """Start a run, as `muralab.tracking.start_run` does, without waiting for the store.

        Returns:
            A name for the run that every method of this writer takes; `run_id` turns it into the run's id.
        """
        starting = Starting(experiment=experiment, kind=kind, name=name, tags=dict(tags or {}), parent=parent)
        self._outbox.put(starting.handle, starting)
        self._open[starting.handle] = None
        return starting.handle

    def run_id(self, run: str) -> str:
        """The id of a run that `start_run` started; waits until it is known.

        Raises:
            StoreError: the run could not be started.
        """
        if run.startswith(HANDLE) and self._outbox.id_of(run) is None:
            self.flush()
        return self._outbox.id_of(run) or run

    def take_over(self, run_id: str) -> str:
        """Answer for the end of a run that was started elsewhere in this process."""
        self._open[run_id] = None
        return run_id

    def adopt_run(self, run_id: str, tags: Mapping[str, object] | None = None, *, kind: str = "tune") -> str:
        """Take over the run that `mlflow run` has created, with our tags; waits.

        Raises:
            StoreError: the run is unknown.
        """
        adopt_run(self._store, run_id, tags, kind=kind)
        self._read(run_id)
        return self.take_over(run_id)

    def resume_run(self, run_id: str, tags: Mapping[str, object] | None = None) -> frozenset[int]:
        """Go on with a run that ended or died: RUNNING again, this process's tags; waits.

        What it holds is read once; a metric that has a value at a step is not written there again.

        Returns:
            The steps that have metrics.

        Raises:
            StoreError: the run is unknown.
        """
        adopt_run(self._store, run_id, tags, kind=self._read(run_id))
        self.take_over(run_id)
        return frozenset(step for _, step in self._seen[run_id])

    def _read(self, run_id: str) -> str:
        try:
            data = self._store.client.get_run(run_id).data
            histories = read_histories(self._store, [(run_id, key) for key in data.metrics])
        except Exception as error:
            raise store_error(self._store, f"go on with the run {run_id}", error) from error
        self._params[run_id] = dict(data.params)
        self._seen[run_id] = {(key, step) for (_, key), steps in histories.items() for step in steps}
        return str(data.tags.get(Tag.KIND, "tune"))

    def log_epoch(self, run: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics at a step, once: those that have a value there already are left out.

        NaN is logged as NaN, an infinite value as the largest float; reading gives back what was logged.
        """
        seen = self._seen.setdefault(run, set())
        at_ms = int(time.time() * 1000)
        new = [(key, float(value), step, at_ms) for key, value in metrics.items() if (key, step) not in seen]
        self._outbox.put(run, Batch(metrics=new))
        seen.update((key, step) for key, *_ in new)

    def log_params(self, run: str, params: Mapping[str, object]) -> None:
        """Log params; a value of more than 6,000 characters is shortened and says so.

        Raises:
            StoreError: the run holds another value for one of them, which MLflow never changes; or an earlier write
                failed.
        """
        held = self._params.setdefault(run, {})
        values = {key: shorten(str(value), MAX_PARAM_CHARACTERS) for key, value in params.items()}
        changed = [key for key, value in values.items() if held.get(key, value) != value]
        if changed:
            key = changed[0]
            raise StoreError(
                f"The run {run} holds the param {key} = '{held[key]}', which MLflow does not let '{values[key]}' "
                "replace. Log it under another name (resolved values: log_resolved), or start a new run."
            )
        self._outbox.put(run, Batch(params={key: value for key, value in values.items() if key not in held}))
        held.update(values)

    def log_resolved(self, run: str, values: Mapping[str, object]) -> None:
        """Log values under `resolved.<key>`, beside the entry point's own params of the same names."""
        self.log_params(run, {f"{RESOLVED}{key}": value for key, value in values.items()})

    def set_tags(self, run: str, tags: Mapping[str, object]) -> None:
        """Set tags; a value of more than 8,000 characters is shortened and says so."""
        self._outbox.put(run, Batch(tags=clean_tags(tags)))

    def log_text(self, run: str, text: str, artifact_path: str) -> None:
        """Log a text as the file `artifact_path`."""
        self._outbox.put(run, Call(lambda client, run_id: client.log_text(run_id, text, artifact_path), artifact_path))

    def log_table(self, run: str, frame: pd.DataFrame, artifact_path: str) -> None:
        """Log a table as the CSV file `artifact_path`; it must not change before it is written."""
        self._outbox.put(run, log_table(frame, artifact_path))

    def log_predictions(self, run: str, name: str, predictions: pd.DataFrame) -> None:
        """Log the predictions on a set (`validation` or `test`), as `RunRecord.predictions` reads them."""
        self.log_table(run, predictions, f"predictions/{name}.csv")
        if name == "test":  # a look at this test set, which the gate counts
            self.set_tags(run, {Tag.TEST_FINGERPRINT: fingerprint_test_set(predictions)})

    def log_file(self, run: str, path: Path, artifact_path: str | None = None) -> None:
        """Log a file, under its own name, in the folder `artifact_path`; it must stay until `flush` or `close`."""
        self._outbox.put(run, log_file(path, artifact_path))

    def log_dataset(
        self,
        run: str,
        *,
        name: str,
        digest: str,
        source: str,
        context: str,
        profile: Mapping[str, object],
        columns: Mapping[str, str] | None = None,
    ) -> None:
        """Log a data set as an input of the run.

        Args:
            run: the run.
            name: as the UI shows it.
            digest: of all rows; at most 36 characters.
            source: the tree's path.
            context: training, validation or test.
            profile: counts and whatever else describes it, as JSON.
            columns: MLflow type (string, long, double) of each column.
        """
        self._outbox.put(run, log_input(
            name=name, digest=digest, source=source, context=context, profile=profile, columns=columns or {}
        ))  # fmt: skip

    def finish(self, run: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED, at the time of this call."""
        self._outbox.check()
        self._end(run, status)

    def _end(self, run: str, status: str) -> None:
        same = {run, self._outbox.id_of(run)} - {None}  # a run may be named by `start_run`'s name or by its id
        self._open = {name: None for name in self._open if not {name, self._outbox.id_of(name)} & same}
        self._outbox.put(run, end_run(status), check=False)

    @property
    def thread_ident(self) -> int:
        """The writing thread, for measuring what it costs."""
        return self._outbox.thread_ident
