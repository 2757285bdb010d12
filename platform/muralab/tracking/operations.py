"""What a `RunWriter` queues: one call of the store each; adjacent metrics, params and tags merge into one batch."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.tracking.runs import experiment_id_of, experiment_of, run_tags, search_runs
from muralab.tracking.store import Store
from muralab.tracking.tags import Tag

HANDLE = "unstarted-"
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_DIGEST_CHARACTERS = 36

Point = tuple[str, float, int, int]
"""Metric, value, step, Unix time in ms."""


@dataclass(frozen=True)
class Batch:
    """Metrics, params and tags of one run."""

    metrics: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

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
    """Any other call, as a function of client and run id."""

    do: Callable[[Any, str], Any]
    what: str

    def __call__(self, client: Any, run_id: str) -> Any:
        """Do it."""
        return self.do(client, run_id)


@dataclass(frozen=True, kw_only=True)
class Starting:
    """The creation of a run, whose id the store decides: until then a handle stands for it."""

    experiment: str | None
    kind: str
    name: str
    tags: Mapping[str, object]
    parent: str | None
    handle: str = field(default_factory=lambda: f"{HANDLE}{uuid.uuid4().hex}")
    queued_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    _tries: list[int] = field(default_factory=list)

    @property
    def what(self) -> str:
        """What it does, for an error's text."""
        return f"start '{self.name}'"

    def start(self, store: Store, ids: Mapping[str, str]) -> str:
        """Create the run, unless an earlier try did and only its answer was lost.

        Args:
            store: where.
            ids: of the runs that have been started, by handle.

        Returns:
            The run's id.
        """
        parent = ids.get(self.parent, self.parent) if self.parent else None
        experiment_id = experiment_of(store, parent) if parent else experiment_id_of(store, self.experiment)
        earlier = (
            search_runs(store, [experiment_id], f"tags.`{Tag.STARTED_AS}` = '{self.handle}'") if self._tries else []
        )
        self._tries.append(1)
        if earlier:
            return str(earlier[0].info.run_id)
        tags = run_tags(self.kind, self.tags, parent) | {Tag.STARTED_AS: self.handle}
        run = store.client.create_run(experiment_id, start_time=self.queued_ms, tags=tags, run_name=self.name)
        return str(run.info.run_id)


Operation = Batch | Call | Starting


def merged(operations: Iterable[Operation]) -> list[list[Operation]]:
    """The operations of one run in order, adjacent batches gathered into groups that are written together."""
    groups: list[list[Operation]] = []
    for operation in operations:
        if groups and isinstance(operation, Batch) and isinstance(groups[-1][0], Batch):
            groups[-1].append(operation)
        else:
            groups.append([operation])
    return groups


def joined(group: Sequence[Operation]) -> Operation:
    """One operation for a group of `merged`; of two values of a tag the later one stays."""
    if len(group) == 1:
        return group[0]
    batches = [operation for operation in group if isinstance(operation, Batch)]
    return Batch(
        metrics=[point for batch in batches for point in batch.metrics],
        params={key: value for batch in batches for key, value in batch.params.items()},
        tags={key: value for batch in batches for key, value in batch.tags.items()},
    )


def end_run(status: str) -> Call:
    """End a run, with the time of now, not of the write."""
    now_ms = int(time.time() * 1000)
    return Call(lambda client, run_id: client.set_terminated(run_id, status, now_ms), f"set {status} as the end")


def log_table(frame: pd.DataFrame, artifact_path: str) -> Call:
    """A table as CSV, every digit of its numbers kept."""
    return Call(
        lambda client, run_id: client.log_text(run_id, frame.to_csv(index=False), artifact_path),
        f"log the table {artifact_path}",
    )


def log_file(path: Path, artifact_path: str | None) -> Call:
    """A file, into a folder of the run's artifacts."""

    def do(client: Any, run_id: str) -> None:
        client.log_artifact(run_id, str(path), artifact_path)

    return Call(do, f"log {path}")


def log_input(
    *, name: str, digest: str, source: str, context: str, profile: Mapping[str, object], columns: Mapping[str, str]
) -> Call:
    """A data set as a run's input, with a digest of our own (MLflow's sees the first 10,000 rows only)."""
    if len(digest) > MAX_DIGEST_CHARACTERS:
        raise ValueError(f"A digest has at most {MAX_DIGEST_CHARACTERS} characters, this one {len(digest)}: {digest}")

    def do(client: Any, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        schema = [{"type": type_, "name": column, "required": True} for column, type_ in columns.items()]
        dataset = Dataset(
            name=name,
            digest=digest,
            source_type="local",
            source=json.dumps({"uri": source}),
            schema=json.dumps({"mlflow_colspec": schema}),
            profile=json.dumps(dict(profile), default=str),
        )
        client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag(Tag.DATA_CONTEXT, context)])])

    return Call(do, f"log the data set {name}")
