"""The run writer: callers queue, a thread writes, and nothing is lost.

Every method returns at once unless its docstring says that it waits. What is queued is in the journal of the command
when the method returns, and is written when the store answers. What the store refuses costs that item alone; it is
reported at the end.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, final

import pandas as pd

from muralab.data.names import LOCAL_COLUMNS
from muralab.errors import StoreError
from muralab.redaction import redact
from muralab.tracking.artifacts import tags_of_test_set
from muralab.tracking.experiment_page import TrialsView
from muralab.tracking.failures import shorten, store_error
from muralab.tracking.journal import Journal
from muralab.tracking.operations import (
    TEMPORARY_ID,
    Batch,
    DescribeExperiment,
    EndRun,
    LogDataset,
    LogFile,
    LogText,
    SaveView,
    new_start,
)
from muralab.tracking.outage import PATIENCE_S
from muralab.tracking.queue import WriteQueue
from muralab.tracking.records import read_histories, read_undefined
from muralab.tracking.refusals import Refusal, refusal_error
from muralab.tracking.runs import MAX_TAG_CHARACTERS, adopt_run, clean_tags
from muralab.tracking.storable import storable
from muralab.tracking.store import Store
from muralab.tracking.stored_names import metric_of, stored_metric, stored_tags, tags_of
from muralab.tracking.tags import RESOLVED, Tag

MAX_PARAM_CHARACTERS = 6000
MAX_DIGEST_CHARACTERS = 36
START_PATIENCE_S = 60.0
"""How long to wait for the id of a run: nothing has been computed yet that would be worth more."""
INTERRUPTED_PATIENCE_S = 20.0
"""How long to wait for a store after Ctrl-C: the journal keeps what it does not take."""


@final
class RunWriter:
    """Writes any number of runs of one store at the same time; a context manager.

    At its end everything queued has been written or is kept in the journal, and the runs that it started, adopted or
    resumed and that were not finished are ended: KILLED after KeyboardInterrupt or SystemExit, else FAILED.
    """

    def __init__(
        self,
        store: Store,
        *,
        patience_s: float = PATIENCE_S,
        journal: Journal | None = None,
        on_refused: Callable[[Sequence[Refusal]], None] | None = None,
    ) -> None:
        """Make a writer.

        Args:
            store: where to write.
            patience_s: for how long a method that waits does so while the store does not answer.
            journal: keeps on disk what is not written yet; None: in memory only.
            on_refused: receives what the store refused, at the end; None: it is raised.
        """
        self._store = store
        self._queue = WriteQueue(store, patience_s=patience_s, journal=journal)
        self._on_refused = on_refused
        self._open: dict[str, None] = {}
        self._logged: dict[str, set[tuple[str, int]]] = {}
        self._params: dict[str, dict[str, str]] = {}
        self._undefined: dict[str, dict[str, dict[str, str]]] = {}

    def __enter__(self) -> Self:
        self._queue.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        try:
            self.close(status="KILLED" if stopped else "FAILED")
        except StoreError as store_failure:
            if error is None:
                raise
            if str(store_failure) != str(error):
                error.add_note(str(store_failure))

    def close(self, *, status: str = "FAILED") -> None:
        """Call `end_open_runs`, stop the thread and report what was refused.

        Raises:
            StoreError: the store did not answer, or refused something that nobody else reports.
        """
        try:
            self.end_open_runs(status)
        finally:
            try:
                self._queue.stop(_patience_of(status))
            finally:
                if self.refusals and self._on_refused is not None:
                    self._on_refused(self.refusals)
        if self.refusals and self._on_refused is None:
            raise refusal_error(self.refusals)

    @property
    def refusals(self) -> Sequence[Refusal]:
        """What the store has refused so far."""
        return self._queue.refusals

    def end_open_runs(self, status: str) -> None:
        """End the open runs and wait until everything is written.

        Raises:
            StoreError: the store did not answer.
        """
        for run in list(self._open):
            self._end(run, status)
        self._queue.flush(_patience_of(status))

    def flush(self) -> None:
        """Wait until everything queued so far is written or refused.

        Raises:
            StoreError: the store did not answer for as long as the writer's patience.
        """
        self._queue.flush()

    def require_written(self) -> None:
        """As `flush`, but nothing may have been refused: before hours are spent on what could not be logged.

        Raises:
            StoreError: the store did not answer, or refused something; names all of it.
        """
        self._queue.flush(START_PATIENCE_S, item_patience_s=START_PATIENCE_S)
        if self.refusals:
            raise refusal_error(self.refusals)

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
            A temporary id that every method of this writer accepts; `run_id` turns it into the run's id.
        """
        start = new_start(experiment=experiment, kind=kind, name=name, tags=tags or {}, parent=parent)
        self._queue.put(start.temporary_id, start)
        self._open[start.temporary_id] = None
        return start.temporary_id

    def run_id(self, run: str) -> str:
        """The id of a run that `start_run` started; waits until it is known.

        Raises:
            StoreError: the run could not be started.
        """
        if run.startswith(TEMPORARY_ID) and self._queue.id_of(run) is None:
            self._queue.flush(START_PATIENCE_S)
            if self._queue.id_of(run) is None:
                raise refusal_error([one for one in self.refusals if one.run == run])
        return self._queue.id_of(run) or run

    def adopt_run(self, run_id: str, tags: Mapping[str, object] | None = None, *, kind: str = "tune") -> str:
        """Write into the run that `mlflow run` created, adding our tags; waits.

        Raises:
            StoreError: the run is unknown.
        """
        adopt_run(self._store, run_id, tags, kind=kind)
        self._read(run_id)
        self._open[run_id] = None
        return run_id

    def resume_run(self, run_id: str, tags: Mapping[str, object] | None = None) -> frozenset[int]:
        """Resume a run that ended or whose process died: status RUNNING, this process's tags; waits.

        Its content is read once; a metric that has a value at a step is not written there again.

        Returns:
            The steps that have metrics.

        Raises:
            StoreError: the run is unknown.
        """
        adopt_run(self._store, run_id, tags, kind=self._read(run_id))
        self._open[run_id] = None
        return frozenset(step for _, step in self._logged[run_id])

    def read_run(self, run_id: str) -> None:
        """Read what a run holds, so that a metric that has a value at a step is not written there again; waits.

        Raises:
            StoreError: the run is unknown.
        """
        self._read(run_id)

    def _read(self, run_id: str) -> str:
        try:
            data = self._store.client.get_run(run_id).data
            histories = read_histories(self._store, [(run_id, key) for key in data.metrics])
        except Exception as error:
            raise store_error(self._store, f"read the run {run_id}", error) from error
        self._params[run_id] = dict(data.params)
        undefined = read_undefined(tags_of(data.tags))
        logged = {(metric_of(key), step) for (_, key), steps in histories.items() for step in steps}
        self._undefined[run_id] = undefined
        self._logged[run_id] = logged | {(key, int(step)) for key, steps in undefined.items() for step in steps}
        return str(data.tags.get(Tag.KIND, "tune"))

    def log_epoch(self, run: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics at a step; a metric that has a value there already is left out.

        NaN and infinite values are kept in a tag, from which reading restores them: as metrics they break charts of
        MLflow's pages, and databases differ in what they store. The others get the names of `stored_names`.
        """
        logged = self._logged.setdefault(run, set())
        at_ms = int(time.time() * 1000)
        new = {key: float(value) for key, value in metrics.items() if (key, step) not in logged}
        undefined = {key: value for key, value in new.items() if not math.isfinite(value)}
        points = [(stored_metric(key), value, int(step), at_ms) for key, value in new.items() if key not in undefined]
        tags = self._undefined_tag(run, step, undefined) if undefined else {}
        self._queue.put(run, Batch(metrics=points, tags=stored_tags(tags)))
        logged.update((key, step) for key in new)

    def last_step(self, run: str, metric: str) -> int:
        """The last step at which this process, or the run that it resumed, has logged a metric; 0 for none."""
        return max((step for key, step in self._logged.get(run, ()) if key == metric), default=0)

    def _undefined_tag(self, run: str, step: int, values: Mapping[str, float]) -> dict[str, str]:
        """The tag of all values that are not finite; a step that does not fit into it any more is left out."""
        known = self._undefined.setdefault(run, {})
        grown = {**known, **{key: {**known.get(key, {}), str(step): str(value)} for key, value in values.items()}}
        text = json.dumps(grown)
        if len(text) > MAX_TAG_CHARACTERS:
            return {}
        self._undefined[run] = grown
        return {Tag.UNDEFINED: text}

    def log_params(self, run: str, params: Mapping[str, object]) -> None:
        """Log params; a value of more than 6,000 characters is shortened, with a mark at its end.

        Raises:
            StoreError: the run has another value of a param, which MLflow does not allow to change.
        """
        present = self._params.setdefault(run, {})
        values = {key: shorten(storable(redact(str(value))), MAX_PARAM_CHARACTERS) for key, value in params.items()}
        changed = [key for key, value in values.items() if present.get(key, value) != value]
        if changed:
            key = changed[0]
            raise StoreError(
                f"The run {run} has the param {key} = '{present[key]}', which MLflow does not allow to change to "
                f"'{values[key]}'. Log it under another name (resolved values: log_resolved), or start a new run."
            )
        self._queue.put(run, Batch(params={key: value for key, value in values.items() if key not in present}))
        present.update(values)

    def log_used(self, run: str, values: Mapping[str, object]) -> None:
        """Log the options that a command used: under their own names, or as `resolved.<name>` where `mlflow run` has
        logged another text, such as `auto`, which MLflow does not allow to change.
        """
        present = self._params.get(run, {})
        texts = {key: shorten(storable(redact(str(value))), MAX_PARAM_CHARACTERS) for key, value in values.items()}
        self.log_params(run, {key: text for key, text in texts.items() if key not in present})
        self.log_resolved(run, {key: text for key, text in texts.items() if present.get(key, text) != text})

    def log_resolved(self, run: str, values: Mapping[str, object]) -> None:
        """Log values under `resolved.<key>`, beside the entry point's own params of the same names."""
        self.log_params(run, {f"{RESOLVED}{key}": value for key, value in values.items()})

    def set_tags(self, run: str, tags: Mapping[str, object]) -> None:
        """Set tags; a value of more than 8,000 characters is shortened, with a mark at its end."""
        self._queue.put(run, Batch(tags=stored_tags(clean_tags(tags))))

    def log_text(self, run: str, text: str, artifact_path: str) -> None:
        """Log a text as the file `artifact_path`."""
        self._queue.put(run, LogText(text, artifact_path))

    def log_table(self, run: str, frame: pd.DataFrame, artifact_path: str) -> None:
        """Log a table as the CSV file `artifact_path`, with all digits.

        Raises:
            ValueError: it has a column of names or paths, which stay on this machine.
        """
        private = sorted(set(LOCAL_COLUMNS) & set(frame.columns))
        if private:
            raise ValueError(f"The table {artifact_path} has columns that are never logged: {', '.join(private)}.")
        self.log_text(run, frame.to_csv(index=False), artifact_path)

    def log_predictions(self, run: str, name: str, predictions: pd.DataFrame, *, fingerprint: str = "") -> None:
        """Log the predictions on a set (`validation` or `test`), which `RunRecord.predictions` reads back.

        Args:
            run: the run.
            name: of the set.
            predictions: one row per image.
            fingerprint: of a test set whose names are coded: that of the names; empty: that of the table.
        """
        self.log_table(run, predictions, f"predictions/{name}.csv")
        if name == "test":  # an evaluation on this test set, which `find_evaluations` finds
            self.set_tags(run, tags_of_test_set(predictions, fingerprint))

    def log_file(self, run: str, path: Path, artifact_path: str | None = None) -> None:
        """Log a file as it is now, under its own name, in the folder `artifact_path`.

        With a journal it may change or vanish afterwards; without one, keep it until `flush` or `close`.

        Raises:
            StoreError: there is no such file.
        """
        journal = self._queue.journal
        try:
            kept = path if journal is None else journal.keep_file(path)
        except FileNotFoundError as error:
            raise StoreError(f"The tracking store: could not log {path}, which does not exist.") from error
        self._queue.put(run, LogFile(str(kept), artifact_path))

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
            name: shown in the UI.
            digest: of all rows (MLflow's own digest covers the first 10,000); at most 36 characters.
            source: the tree's path.
            context: training, validation or test.
            profile: counts and other facts, written as JSON.
            columns: MLflow type (string, long, double) of each column.
        """
        if len(digest) > MAX_DIGEST_CHARACTERS:
            raise ValueError(f"A digest has at most {MAX_DIGEST_CHARACTERS} characters, got {len(digest)}: {digest}")
        schema = [{"type": type_, "name": column, "required": True} for column, type_ in (columns or {}).items()]
        fields = {
            "name": name,
            "digest": digest,
            "source_type": "local",
            "source": json.dumps({"uri": source}),
            "schema": json.dumps({"mlflow_colspec": schema}),
            "profile": json.dumps(dict(profile), default=str),
        }
        self._queue.put(run, LogDataset(fields, context))

    def describe_experiment(self, run: str, note: str) -> None:
        """Set the description of the experiment that holds a run, unless somebody has written another one."""
        self._queue.put(run, DescribeExperiment(note))

    def save_view(self, run: str, view: TrialsView) -> None:
        """Save a view of trials in the experiment that holds a run."""
        self._queue.put(run, SaveView(view))

    def finish(self, run: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED, at the time of this call."""
        self._end(run, status)

    def _end(self, run: str, status: str) -> None:
        same = {run, self._queue.id_of(run)} - {None}  # a run may be given by its temporary id or by its id
        self._open = {other: None for other in self._open if not {other, self._queue.id_of(other)} & same}
        self._queue.put(run, EndRun(status, int(time.time() * 1000)))

    def leave_open_runs(self) -> None:
        """Leave the open runs to another process, which has resumed them."""
        self._open.clear()

    @property
    def thread_ident(self) -> int:
        """The identifier of the writing thread, to measure its CPU time."""
        return self._queue.thread_ident


def _patience_of(status: str) -> float | None:
    return INTERRUPTED_PATIENCE_S if status == "KILLED" else None
