"""Reading runs: everything that reports, comparisons and resumed sweeps know about a run."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from muralab.errors import StoreError, numbered
from muralab.redaction import redact
from muralab.tracking.artifacts import StoredPredictions, fingerprint_test_set
from muralab.tracking.failures import store_error
from muralab.tracking.patient_sketch import LOOKED_UP, is_mostly_the_same
from muralab.tracking.runs import experiment_of, search_runs
from muralab.tracking.store import Store
from muralab.tracking.stored_names import metric_of, metrics_in_order, stored_metric, stored_tag, tag_filters, tags_of
from muralab.tracking.tags import RESOLVED, Tag, resolved_values_of

LARGEST = 1.797e308  # a database stores an infinite metric as the largest float
REMOTE_READERS = 8


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run with its tags, params, metrics and predictions."""

    run_id: str
    name: str
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    experiment_id: str
    parent: str | None = None
    kind: str = ""
    """See `Tag.KIND`; empty for a run of another program."""
    recipe: str = ""
    part: str = ""
    params: dict[str, str] = field(repr=False, default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """The last value of each, by the names of the code, see `stored_names`."""
    tags: dict[str, str] = field(repr=False, default_factory=dict)
    history: pd.DataFrame = field(repr=False, default_factory=pd.DataFrame)
    """Index `step` (the global epoch, from 1), one column per metric; NaN where a metric has no value at a step."""
    predictions: Mapping[str, pd.DataFrame] = field(repr=False, default_factory=dict)
    """`validation` and `test`, each read on first access; StoreError for one that was not logged."""
    started_s: float = 0.0
    """Unix time."""

    @property
    def values(self) -> dict[str, str]:
        """Every value that the run was carried out with, such as `full.lr`."""
        return self.searched | resolved_values_of(self.params)

    @property
    def searched(self) -> dict[str, str]:
        """The values that its search drew; empty for a run that is not a trial, and for trials of earlier versions."""
        own = self.params if self.kind == "trial" else {}
        return {key: value for key, value in own.items() if not key.startswith(RESOLVED)}

    @property
    def short_name(self) -> str:
        """A trial's name within its search, such as `cnn-01`; of other runs the kind."""
        return self.tags.get(Tag.TRIAL, self.name) if self.kind == "trial" else self.kind or self.name

    @property
    def test_fingerprint(self) -> str:
        """Of the test set that it was evaluated on, as it is tagged.

        Raises:
            StoreError: it holds no test predictions.
        """
        tagged = self.tags.get(Tag.TEST_FINGERPRINT)
        if tagged:
            return tagged
        held = self.predictions
        return fingerprint_test_set(held.as_logged("test") if isinstance(held, StoredPredictions) else held["test"])


def read_run(store: Store, run_id: str, predictions: bool = True) -> RunRecord:
    """One run with its history.

    Args:
        store: where to read.
        run_id: its id.
        predictions: whether `record.predictions` reads from the store; if not, it is empty.

    Raises:
        StoreError: no such run, or the store failed.
    """
    try:
        run = store.client.get_run(run_id)
    except Exception as error:
        raise _unknown_run(store, run_id, error) from error
    return _records(store, [run], history=True, predictions=predictions)[0]


def read_children(store: Store, parent_id: str, predictions: bool = False, *, history: bool = True) -> list[RunRecord]:
    """All runs whose parent is a run, oldest first.

    Args:
        store: where to read.
        parent_id: the parent's id.
        predictions: as for `read_run`.
        history: whether to read each metric's values at all steps; if not, one query reads 1,000 runs.

    Raises:
        StoreError: no such parent, or the store failed.
    """
    where = f"tags.`mlflow.parentRunId` = '{parent_id}'"
    runs = _search(store, [_experiment(store, parent_id)], where)
    return _records(store, runs, history=history, predictions=predictions)


def with_histories(store: Store, records: Sequence[RunRecord], metrics: Collection[str]) -> list[RunRecord]:
    """Runs that were read without their histories, with those of some metrics.

    Each metric of each run takes a request, so that a search with thousands of trials asks for what it needs.

    Args:
        store: where to read.
        records: the runs.
        metrics: their names in the code; a run need not have them.

    Raises:
        StoreError: the store failed.
    """
    pairs = [(one.run_id, key) for one in records for name in metrics if name in one.metrics for key in _names(name)]
    values = _histories(store, pairs)
    return [replace(one, history=_history(one, metrics, values)) for one in records]


def _names(metric: str) -> list[str]:
    """A metric's names in the store: in runs of this version, and of earlier ones, which come first."""
    return list(dict.fromkeys((metric, stored_metric(metric))))


def _history(
    record: RunRecord, metrics: Collection[str], values: Mapping[tuple[str, str], Mapping[int, float]]
) -> pd.DataFrame:
    undefined = read_undefined(record.tags)
    columns = {
        name: {step: value for key in _names(name) for step, value in values.get((record.run_id, key), {}).items()}
        | {int(step): float(value) for step, value in undefined.get(name, {}).items()}
        for name in metrics
    }
    found = {name: column for name, column in columns.items() if column}
    return pd.DataFrame(found).rename_axis(index="step").sort_index()


def find_records(store: Store, parent_id: str, run_ids: Sequence[str], *, history: bool = True) -> dict[str, RunRecord]:
    """All runs below a parent, by their ids.

    Args:
        store: where to read.
        parent_id: the parent's id.
        run_ids: those that have to be among them.
        history: as for `read_children`.

    Raises:
        StoreError: some of these have been deleted, or the store failed.
    """
    found = {record.run_id: record for record in read_children(store, parent_id, history=history)}
    missing = [run_id for run_id in run_ids if run_id not in found]
    if missing:
        restore = [f"mlflow runs restore --run-id {run_id}" for run_id in missing]
        raise StoreError(numbered(f"{len(missing)} runs below {parent_id} have been deleted. Restore them:", restore))
    return found


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """The runs in a store that were evaluated on a test set."""

    patients: str
    """Sketch of the set's patients, see `patient_sketch`; empty where only versions without it have logged it."""
    run_ids: frozenset[str]
    """On this set, or on one with mostly the same patients, in all experiments; also of runs in the store's trash."""


def find_evaluations(store: Store, fingerprint: str, patients: str = "") -> Evaluations:
    """Look up the runs that were evaluated on a test set, or on one with mostly the same patients.

    With `duplicates=drop`, a corrected label or an unreadable file, a test set gets another fingerprint.

    Args:
        store: where to search.
        fingerprint: of the test set, see `fingerprint_test_set`.
        patients: their sketch, where it is known; otherwise that of the first run that has one.

    Raises:
        StoreError: the store failed.
    """
    same = _search_evaluations(store, tag_filters(Tag.TEST_FINGERPRINT, fingerprint))
    patients = patients or next(filter(None, same.values()), "")
    tag = stored_tag(Tag.TEST_PATIENTS)
    alike = _search_evaluations(store, [f"tags.`{tag}` LIKE '%{one}%'" for one in patients.split()[:LOOKED_UP]])
    mostly = {run_id for run_id, sketch in alike.items() if is_mostly_the_same(sketch, patients)}
    return Evaluations(patients=patients, run_ids=frozenset(same) | mostly)


def _search_evaluations(store: Store, filters: Sequence[str]) -> dict[str, str]:
    """Ids of the runs that match any of MLflow's filters -> sketch of their test set's patients."""
    found: dict[str, str] = {}
    for where in filters:
        try:
            runs = search_runs(store, None, where, deleted=True)
        except Exception as error:
            raise store_error(store, f"search for runs with {where}", error) from error
        found |= {str(run.info.run_id): tags_of(run.data.tags).get(Tag.TEST_PATIENTS, "") for run in runs}
    return found


def find_trials(store: Store, tag: str, value: str) -> list[RunRecord]:
    """All trials with a tag, in all experiments, without their histories and predictions.

    Args:
        store: where to search.
        tag: its name.
        value: of the tag.

    Raises:
        StoreError: the store failed.
    """
    found = {run.info.run_id: run for where in tag_filters(tag, value) for run in _search(store, None, where)}
    records = _records(store, list(found.values()), history=False, predictions=False)
    return [record for record in records if record.kind == "trial"]


def _experiment(store: Store, run_id: str) -> str:
    try:
        return experiment_of(store, run_id)
    except StoreError as error:
        raise _unknown_run(store, run_id, error) from error


def _unknown_run(store: Store, run_id: str, error: BaseException) -> StoreError:
    if "not found" in str(error) or "Invalid run id" in str(error) or "parameter 'run_id'" in str(error):
        return StoreError(
            f"The tracking store {redact(store.uri)} has no run '{run_id}'. Take the id from the run's page in the UI, "
            "and check that MLFLOW_TRACKING_URI is the store that the run was written to."
        )
    return error if isinstance(error, StoreError) else store_error(store, f"read the run {run_id}", error)


def _search(store: Store, experiment_ids: list[str] | None, where: str) -> list[Any]:
    try:
        return search_runs(store, experiment_ids, where)
    except Exception as error:
        raise store_error(store, f"search for runs with {where}", error) from error


def _records(store: Store, runs: list[Any], *, history: bool, predictions: bool) -> list[RunRecord]:
    pairs = [(str(run.info.run_id), key) for run in runs if history for key in run.data.metrics]
    values = _histories(store, pairs)
    return [_build_record(store, run, values, predictions) for run in runs]


def _histories(store: Store, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], dict[int, float]]:
    try:
        return read_histories(store, pairs)
    except Exception as error:
        raise store_error(store, "read the history of metrics", error) from error


def read_histories(store: Store, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], dict[int, float]]:
    """(run id, metric) -> step -> value; from a server several at a time. Does not convert MLflow's errors."""

    def read(pair: tuple[str, str]) -> dict[int, float]:
        points = sorted(store.client.get_metric_history(*pair), key=lambda point: point.timestamp)
        return {int(point.step): _restore(point.value) for point in points}

    if not store.is_remote:
        return {pair: read(pair) for pair in pairs}
    with ThreadPoolExecutor(REMOTE_READERS) as pool:
        return dict(zip(pairs, pool.map(read, pairs), strict=True))


def _restore(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) > LARGEST else float(value)


def _build_record(
    store: Store, run: Any, values: dict[tuple[str, str], dict[int, float]], predictions: bool
) -> RunRecord:
    info, tags = run.info, tags_of(run.data.tags)
    columns: dict[str, dict[int, float]] = {}
    for key in [key for key in metrics_in_order(run.data.metrics) if (info.run_id, key) in values]:
        columns.setdefault(metric_of(key), {}).update(values[info.run_id, key])
    metrics = {metric_of(key): _restore(run.data.metrics[key]) for key in metrics_in_order(run.data.metrics)}
    for key, steps in read_undefined(tags).items():
        undefined = {int(step): float(value) for step, value in steps.items()}
        if key not in metrics or max(undefined) > max(columns.get(key, {}), default=max(undefined)):
            metrics[key] = undefined[max(undefined)]
        if columns or not run.data.metrics:
            columns[key] = {**columns.get(key, {}), **undefined}
    return RunRecord(
        run_id=str(info.run_id),
        name=info.run_name or "",
        status=str(info.status),
        experiment_id=str(info.experiment_id),
        parent=tags.get(Tag.PARENT_RUN_ID),
        kind=tags.get(Tag.KIND, ""),
        recipe=tags.get(Tag.RECIPE, ""),
        part=tags.get(Tag.PART, ""),
        params=dict(run.data.params),
        metrics=metrics,
        tags=tags,
        history=pd.DataFrame(columns).rename_axis(index="step").sort_index(),
        predictions=StoredPredictions(store, str(info.run_id), tags) if predictions else {},
        started_s=(info.start_time or 0) / 1000,
    )


def read_undefined(tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The values of a run that are not finite: metric -> step -> `nan`, `inf` or `-inf`; see `RunWriter.log_epoch`."""
    try:
        found = json.loads(tags.get(Tag.UNDEFINED, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
