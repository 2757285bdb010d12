"""What can be written into a run, as data: it can be kept in a journal and written again without doubling anything."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muralab.tracking.experiment_page import TrialsView, write_note, write_view
from muralab.tracking.runs import experiment_id_of, experiment_of, run_tags, search_runs
from muralab.tracking.storable import storable
from muralab.tracking.store import Store
from muralab.tracking.stored_names import stored_tags, tag_filters
from muralab.tracking.tags import Tag

TEMPORARY_ID = "unstarted-"
"""What the id of a run begins with until the store has created the run."""
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100

Point = tuple[str, float, int, int]
"""Metric, value, step, Unix time in ms."""


@dataclass(frozen=True)
class Batch:
    """Metrics, params and tags of one run. The store keeps one of two equal metrics, time stamp included."""

    metrics: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """What it does, for messages: "could not <what>"."""
        return "log metrics, params or tags"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it, in as few calls as MLflow's limits allow: one for an epoch."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(key, value, at_ms, step) for key, value, step, at_ms in self.metrics]
        params = [Param(key, value) for key, value in storable(self.params).items()]
        tags = [RunTag(key, value) for key, value in storable(self.tags).items()]
        while metrics or params or tags:
            # A request may hold 1,000 entities in all: 1,000 metrics alone, or 800 with the most params and tags.
            n_metrics = MAX_METRICS - len(params[:MAX_PARAMS]) - len(tags[:MAX_TAGS])
            client.log_batch(run_id, metrics[:n_metrics], params[:MAX_PARAMS], tags[:MAX_TAGS], synchronous=True)
            metrics, params, tags = metrics[n_metrics:], params[MAX_PARAMS:], tags[MAX_TAGS:]


@dataclass(frozen=True)
class LogText:
    """A text as an artifact."""

    text: str
    path: str
    """Of the artifact."""

    @property
    def what(self) -> str:
        """What it does, for messages."""
        return f"log {self.path}"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it."""
        client.log_text(run_id, self.text, self.path)


@dataclass(frozen=True)
class LogFile:
    """A file as an artifact, under its own name."""

    file: str
    folder: str | None = None
    """Of the artifact; None: the run's own."""

    @property
    def what(self) -> str:
        """What it does, for messages."""
        name = Path(self.file).name
        return f"log {self.folder}/{name}" if self.folder else f"log {name}"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it."""
        client.log_artifact(run_id, self.file, self.folder)


@dataclass(frozen=True)
class LogDataset:
    """A data set as an input of the run."""

    fields: Mapping[str, str]
    """Of MLflow's `Dataset`."""
    context: str
    """training, validation or test."""

    @property
    def what(self) -> str:
        """What it does, for messages."""
        return f"log the data set {self.fields['name']}"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entry = DatasetInput(Dataset(**storable(self.fields)), [InputTag(Tag.DATA_CONTEXT, self.context)])
        client.log_inputs(run_id, datasets=[entry])


@dataclass(frozen=True)
class EndRun:
    """The end of a run."""

    status: str
    ended_ms: int

    @property
    def what(self) -> str:
        """What it does, for messages."""
        return f"set the status {self.status}"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it."""
        client.set_terminated(run_id, self.status, self.ended_ms)


@dataclass(frozen=True)
class DescribeExperiment:
    """The description of the experiment that holds the run, unless somebody has written another one."""

    note: str

    @property
    def what(self) -> str:
        """What it does, for messages."""
        return "describe the experiment"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it."""
        write_note(client, client.get_run(run_id).info.experiment_id, self.note)


@dataclass(frozen=True)
class SaveView:
    """A view of trials in the experiment that holds the run."""

    view: TrialsView

    @property
    def what(self) -> str:
        """What it does, for messages."""
        return f"save the view '{self.view.name}'"

    def __call__(self, client: Any, run_id: str) -> None:
        """Write it."""
        write_view(client, client.get_run(run_id).info.experiment_id, self.view)


@dataclass(kw_only=True)
class StartRun:
    """The creation of a run; a temporary id stands for it until the store has given it an id."""

    experiment: str | None
    name: str
    tags: Mapping[str, str]
    """All of them, except those that name the parent."""
    parent: str | None = None
    temporary_id: str = field(default_factory=lambda: f"{TEMPORARY_ID}{uuid.uuid4().hex}")
    queued_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    attempts: int = 0
    """So far: one may have created the run although its answer was lost."""

    @property
    def what(self) -> str:
        """What it does, for messages."""
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
        created = self.created(store, experiment_id) if self.attempts else []
        if created:
            return created[0]
        self.attempts += 1
        nested = {Tag.PARENT_RUN_ID: parent, Tag.PARENT: parent} if parent else {}
        tags = stored_tags({**self.tags, **nested, Tag.STARTED_AS: self.temporary_id})
        run = store.client.create_run(experiment_id, start_time=self.queued_ms, tags=tags, run_name=self.name)
        return str(run.info.run_id)

    def created(self, store: Store, experiment_id: str) -> list[str]:
        """The runs that were created for it, oldest first: more than one where an answer came after all."""
        found = search_runs(store, [experiment_id], tag_filters(Tag.STARTED_AS, self.temporary_id)[0])
        return sorted(str(run.info.run_id) for run in found)


Writing = Batch | LogText | LogFile | LogDataset | DescribeExperiment | SaveView | EndRun
"""What is written into a run that exists."""
Operation = Writing | StartRun
_KINDS: dict[str, Any] = {
    one.__name__: one for one in (Batch, LogText, LogFile, LogDataset, DescribeExperiment, SaveView, EndRun, StartRun)
}


def new_start(
    *, experiment: str | None, kind: str, name: str, tags: Mapping[str, object], parent: str | None
) -> StartRun:
    """The creation of a run by this process."""
    return StartRun(experiment=experiment, name=name, tags=run_tags(kind, tags), parent=parent)


def to_json(operation: Operation) -> dict[str, Any]:
    """An operation as plain values."""
    return {"kind": type(operation).__name__, **dataclasses.asdict(operation)}


def from_json(values: Mapping[str, Any]) -> Operation:
    """What `to_json` gave.

    Raises:
        KeyError: of an unknown kind.
        TypeError: with missing or unknown fields.
    """
    fields = {key: value for key, value in values.items() if key != "kind"}
    operation: Operation = _KINDS[values["kind"]](**fields)
    if isinstance(operation, Batch):
        return dataclasses.replace(operation, metrics=[tuple(point) for point in operation.metrics])  # type: ignore[misc]
    if isinstance(operation, SaveView):
        return SaveView(TrialsView(**fields["view"]))
    if isinstance(operation, StartRun):  # whether the store has created it is not known any more
        return dataclasses.replace(operation, attempts=operation.attempts + 1)
    return operation
