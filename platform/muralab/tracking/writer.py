"""The run writer: callers queue, a thread writes, and no failure is lost.

Every method returns at once unless its docstring says that it waits. A write that fails permanently is raised as a
StoreError by the caller's next call, by `flush` and at the end of the `with` block, which also ends the open runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import pandas as pd

from muralab.errors import StoreError
from muralab.tracking.artifacts import fingerprint_test_set
from muralab.tracking.experiment_page import TrialsView, write_note, write_view
from muralab.tracking.queue import TEMPORARY_ID, Batch, Call, StartRun, WriteQueue
from muralab.tracking.records import read_histories
from muralab.tracking.runs import adopt_run, clean_tags
from muralab.tracking.store import Store, shorten, store_error
from muralab.tracking.stored_names import metric_of, stored_metric, stored_tags
from muralab.tracking.tags import RESOLVED, Tag

MAX_PARAM_CHARACTERS = 6000
MAX_DIGEST_CHARACTERS = 36


@final
class RunWriter:
    """Writes any number of runs of one store at the same time; a context manager.

    At its end everything queued has been written, and the runs that it started, adopted or resumed and that were not
    finished are ended: KILLED after KeyboardInterrupt or SystemExit, else FAILED.
    """

    def __init__(self, store: Store, *, patience_s: float = 60.0) -> None:
        """Make a writer.

        Args:
            store: where to write.
            patience_s: for how long a write that fails for a temporary reason is retried.
        """
        self._store = store
        self._queue = WriteQueue(store, patience_s=patience_s)
        self._open: dict[str, None] = {}
        self._logged: dict[str, set[tuple[str, int]]] = {}
        self._params: dict[str, dict[str, str]] = {}

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
        """Call `end_open_runs` and stop the thread."""
        try:
            self.end_open_runs(status)
        finally:
            self._queue.stop()

    def end_open_runs(self, status: str) -> None:
        """End the open runs and wait until everything is written.

        Raises:
            StoreError: something could not be written.
        """
        for run in list(self._open):
            self._end(run, status)
        self.flush()

    def flush(self) -> None:
        """Wait until everything queued so far is written.

        Raises:
            StoreError: something could not be written.
        """
        self._queue.flush()

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
        start = StartRun(experiment=experiment, kind=kind, name=name, tags=dict(tags or {}), parent=parent)
        self._queue.put(start.temporary_id, start)
        self._open[start.temporary_id] = None
        return start.temporary_id

    def run_id(self, run: str) -> str:
        """The id of a run that `start_run` started; waits until it is known.

        Raises:
            StoreError: the run could not be started.
        """
        if run.startswith(TEMPORARY_ID) and self._queue.id_of(run) is None:
            self.flush()
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

    def _read(self, run_id: str) -> str:
        try:
            data = self._store.client.get_run(run_id).data
            histories = read_histories(self._store, [(run_id, key) for key in data.metrics])
        except Exception as error:
            raise store_error(self._store, f"read the run {run_id}", error) from error
        self._params[run_id] = dict(data.params)
        self._logged[run_id] = {(metric_of(key), step) for (_, key), steps in histories.items() for step in steps}
        return str(data.tags.get(Tag.KIND, "tune"))

    def log_epoch(self, run: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics at a step; a metric that has a value there already is left out.

        NaN is logged as NaN, an infinite value as the largest float; reading restores both. Stored under the names of
        `stored_names`.
        """
        logged = self._logged.setdefault(run, set())
        at_ms = int(time.time() * 1000)
        missing = {key: value for key, value in metrics.items() if (key, step) not in logged}
        new = [(stored_metric(key), float(value), step, at_ms) for key, value in missing.items()]
        self._queue.put(run, Batch(metrics=new))
        logged.update((key, step) for key in missing)

    def last_step(self, run: str, metric: str) -> int:
        """The last step at which this process, or the run that it resumed, has logged a metric; 0 for none."""
        return max((step for key, step in self._logged.get(run, ()) if key == metric), default=0)

    def log_params(self, run: str, params: Mapping[str, object]) -> None:
        """Log params; a value of more than 6,000 characters is shortened, with a mark at its end.

        Raises:
            StoreError: the run has another value of a param, which MLflow does not allow to change; or an earlier
                write failed.
        """
        present = self._params.setdefault(run, {})
        values = {key: shorten(str(value), MAX_PARAM_CHARACTERS) for key, value in params.items()}
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
        texts = {key: shorten(str(value), MAX_PARAM_CHARACTERS) for key, value in values.items()}
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
        self._call(run, f"log {artifact_path}", lambda client, run_id: client.log_text(run_id, text, artifact_path))

    def log_table(self, run: str, frame: pd.DataFrame, artifact_path: str) -> None:
        """Log a table as the CSV file `artifact_path`, with all digits; it must not change before it is written."""
        self._call(
            run,
            f"log the table {artifact_path}",
            lambda client, run_id: client.log_text(run_id, frame.to_csv(index=False), artifact_path),
        )

    def log_predictions(self, run: str, name: str, predictions: pd.DataFrame) -> None:
        """Log the predictions on a set (`validation` or `test`), which `RunRecord.predictions` reads back."""
        self.log_table(run, predictions, f"predictions/{name}.csv")
        if name == "test":  # an evaluation on this test set, which `find_evaluations` finds
            self.set_tags(run, {Tag.TEST_FINGERPRINT: fingerprint_test_set(predictions)})

    def log_file(self, run: str, path: Path, artifact_path: str | None = None) -> None:
        """Log a file, under its own name, in the folder `artifact_path`; keep it until `flush` or `close`."""
        self._call(run, f"log {path}", lambda client, run_id: client.log_artifact(run_id, str(path), artifact_path))

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

        def log(client: Any, run_id: str) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            entry = DatasetInput(Dataset(**fields), [InputTag(Tag.DATA_CONTEXT, context)])
            client.log_inputs(run_id, datasets=[entry])

        self._call(run, f"log the data set {name}", log)

    def describe_experiment(self, run: str, note: str) -> None:
        """Set the description of the experiment that holds a run, unless somebody has written another one."""

        def write(client: Any, run_id: str) -> None:
            write_note(client, client.get_run(run_id).info.experiment_id, note)

        self._call(run, "describe the experiment", write)

    def save_view(self, run: str, view: TrialsView) -> None:
        """Save a view of trials in the experiment that holds a run."""

        def write(client: Any, run_id: str) -> None:
            write_view(client, client.get_run(run_id).info.experiment_id, view)

        self._call(run, f"save the view '{view.name}'", write)

    def finish(self, run: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED, at the time of this call."""
        self._queue.check()
        self._end(run, status)

    def _end(self, run: str, status: str) -> None:
        same = {run, self._queue.id_of(run)} - {None}  # a run may be given by its temporary id or by its id
        self._open = {other: None for other in self._open if not {other, self._queue.id_of(other)} & same}
        ended_ms = int(time.time() * 1000)
        self._call(
            run,
            f"set the status {status}",
            lambda client, run_id: client.set_terminated(run_id, status, ended_ms),
            check=False,
        )

    def _call(self, run: str, what: str, do: Callable[[Any, str], Any], *, check: bool = True) -> None:
        self._queue.put(run, Call(do, what), check=check)

    @property
    def thread_ident(self) -> int:
        """The identifier of the writing thread, to measure its CPU time."""
        return self._queue.thread_ident
