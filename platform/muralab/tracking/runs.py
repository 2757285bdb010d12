"""Starting runs, adopting the run of `mlflow run`, and closing the runs of dead processes."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from muralab.errors import StoreError
from muralab.redaction import redact
from muralab.tracking.failures import is_forbidden, is_temporary, shorten, store_error
from muralab.tracking.platform_version import platform_version
from muralab.tracking.process import is_gone, process_tags
from muralab.tracking.storable import MAX_RUN_NAME, storable
from muralab.tracking.store import Store
from muralab.tracking.stored_names import stored_tags, tag_filters, tags_of
from muralab.tracking.tags import Tag

MAX_TAG_CHARACTERS = 8000
PAGE = 1000
DEFAULT_EXPERIMENT = "Default"
REASON_CLOSED = "the process was gone"
EXPERIMENT_KIND = "custom_model_development"
"""MLflow's word for model training."""


def start_run(
    store: Store,
    *,
    experiment: str | None = None,
    kind: str,
    name: str,
    tags: Mapping[str, object] | None = None,
    parent: str | None = None,
) -> str:
    """Create a run with status RUNNING and return its id.

    Args:
        store: where to write.
        experiment: its name, created if missing; None: the parent's, or `Default`.
        kind: see `Tag.KIND`.
        name: shown in the UI.
        tags: added to those of the process (`process_tags`).
        parent: the id of the run that it is nested in, which decides the experiment.

    Raises:
        StoreError: the store failed, or the parent is unknown.
    """
    experiment_id = experiment_of(store, parent) if parent else experiment_id_of(store, experiment)
    try:
        stored = stored_tags(run_tags(kind, tags, parent))
        run = store.client.create_run(experiment_id, tags=stored, run_name=name)
    except Exception as error:
        raise store_error(store, f"start the run '{name}'", error) from error
    return str(run.info.run_id)


def adopt_run(store: Store, run_id: str, tags: Mapping[str, object] | None = None, *, kind: str = "tune") -> str:
    """Use a run that exists, such as the one that `mlflow run` created: status RUNNING, the tags of this process.

    Its own tags, params and metrics are kept.

    Raises:
        StoreError: the run is unknown.
    """
    new = {Tag.KIND: kind} | _own_process_tags() | clean_tags(tags or {})
    try:
        present = store.client.get_run(run_id).data.tags
        _set_tags(store, run_id, new | ({} if Tag.GIT_COMMIT in present else platform_version().commit_tag))
        store.client.update_run(run_id, status="RUNNING", name=new.get(Tag.RUN_NAME))
        mark_experiment(store, experiment_of(store, run_id))
    except Exception as error:
        raise store_error(store, f"adopt the run {run_id}", error) from error
    return run_id


def claim_run(store: Store, run_id: str) -> None:
    """Mark the run that `mlflow run` created as this process's, before there is anything to write into it.

    Decoding and auditing a data set take minutes, and `close_dead_runs` never closes a run without these tags if both
    `mlflow run` and this process are killed meanwhile.

    Raises:
        StoreError: the run is unknown.
    """
    try:
        _set_tags(store, run_id, _own_process_tags())
    except Exception as error:
        raise store_error(store, f"adopt the run {run_id}", error) from error


def _own_process_tags() -> dict[str, str]:
    """The tags of this process without MLflow's, which `mlflow run` has set."""
    return {key: value for key, value in process_tags().items() if not key.startswith("mlflow.")}


def _set_tags(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in stored_tags(tags).items()])


def experiment_of(store: Store, run_id: str) -> str:
    """The id of the experiment that holds a run."""
    try:
        return str(store.client.get_run(run_id).info.experiment_id)
    except Exception as error:
        raise store_error(store, f"find the run {run_id}", error) from error


def experiment_id_of(store: Store, name: str | None) -> str:
    """The id of an experiment, created if missing; a local store keeps its artifacts beside the database."""
    name = name or DEFAULT_EXPERIMENT
    try:
        found = store.client.get_experiment_by_name(name)
        if found is None:
            return _create_experiment(store, name)
    except Exception as error:
        raise store_error(store, f"find or create the experiment '{name}'", error) from error
    if found.lifecycle_stage != "active":
        raise StoreError(
            f"The experiment '{name}' of {redact(store.uri)} is deleted. Restore it (`mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`) or use another name."
        )
    return str(found.experiment_id)


def mark_experiment(store: Store, experiment_id: str) -> None:
    """Let the UI show an experiment as model training, unless its kind has been set."""
    if Tag.EXPERIMENT_KIND not in store.client.get_experiment(experiment_id).tags:
        store.client.set_experiment_tag(experiment_id, Tag.EXPERIMENT_KIND, EXPERIMENT_KIND)


def _create_experiment(store: Store, name: str) -> str:
    location = None
    if store.sqlite_path is not None:  # MLflow's default depends on the working directory
        folder = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "experiment"
        location = (store.sqlite_path.parent / "mlruns" / folder).as_uri()
    try:
        created = str(store.client.create_experiment(name, artifact_location=location))
        mark_experiment(store, created)
        return created
    except Exception:
        found = store.client.get_experiment_by_name(name)  # another process has just created it
        if found is None:
            raise
        return str(found.experiment_id)


def run_tags(kind: str, tags: Mapping[str, object] | None = None, parent: str | None = None) -> dict[str, str]:
    """All tags of a new run: kind, process, parent, and the caller's."""
    nested = {Tag.PARENT_RUN_ID: parent, Tag.PARENT: parent} if parent else {}
    return {Tag.KIND: kind} | process_tags() | nested | clean_tags(tags or {})


def clean_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as MLflow and every database accept them: text of at most 8,000 characters, or of 250 as the run's name.

    A longer one is shortened, with a mark.
    """
    limits = {Tag.RUN_NAME: MAX_RUN_NAME}
    return {
        key: shorten(storable(redact(str(value))), limits.get(key, MAX_TAG_CHARACTERS)) for key, value in tags.items()
    }


def close_dead_runs(
    store: Store, experiment_ids: Sequence[str] | None = None, *, claim: str | None = None
) -> list[str]:
    """Set the status KILLED for runs whose status is RUNNING although their process, on this host, has ended.

    Runs of other hosts, of other pid namespaces (containers) and of live processes are not changed, nor are those of
    other users of this host in experiments that this user may only read.

    Args:
        store: where to search.
        experiment_ids: in which experiments; None: in all.
        claim: the run that `mlflow run` created for this command, which is marked as this process's first.

    Returns:
        The ids of the runs that were closed.
    """
    if claim:
        claim_run(store, claim)
    try:
        return [run_id for run_id in find_dead_runs(store, experiment_ids) if _close(store, run_id)]
    except Exception as error:
        raise store_error(store, "close the runs of dead processes", error) from error


def _close(store: Store, run_id: str) -> bool:
    """Close a run; whether this user may."""
    try:
        store.client.set_tag(run_id, Tag.CLOSED_AFTER, REASON_CLOSED)
        store.client.set_terminated(run_id, status="KILLED")
    except Exception as error:
        if is_forbidden(error):
            return False
        raise
    return True


def find_dead_runs(store: Store, experiment_ids: Sequence[str] | None = None) -> list[str]:
    """The ids of the runs that `close_dead_runs` would close. Does not convert MLflow's errors."""
    host = socket.gethostname().replace("'", "")
    found: list[str] = []
    for of_host in tag_filters(Tag.HOST, host):
        running = search_runs(store, experiment_ids, f"attributes.status = 'RUNNING' and {of_host}")
        found += [str(run.info.run_id) for run in running if is_gone(tags_of(run.data.tags))]
    return found


def search_runs(store: Store, experiment_ids: Sequence[str] | None, where: str, *, deleted: bool = False) -> list[Any]:
    """All runs that match a filter, oldest first, from all pages. Does not convert MLflow's errors.

    Args:
        store: where to search.
        experiment_ids: in which experiments; None: in all.
        where: MLflow's filter.
        deleted: whether deleted runs count that the store still holds.
    """
    from mlflow.entities import ViewType

    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    if experiment_ids is None:
        experiment_ids = _all_experiments(store, view)
    found: list[Any] = []
    token: str | None = None
    while experiment_ids:
        page = store.client.search_runs(
            list(experiment_ids),
            where,
            run_view_type=view,
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found.extend(page)
        token = page.token
        if not token:
            break
    return found


def _all_experiments(store: Store, view: int) -> list[str]:
    found: list[str] = []
    token: str | None = None
    while True:
        page = store.client.search_experiments(view_type=view, max_results=PAGE, page_token=token)
        found.extend(str(experiment.experiment_id) for experiment in page)
        token = page.token
        if not token:
            return found


def why_stale(store: Store, run_id: str) -> str:
    """Why the run that MLFLOW_RUN_ID names is not this command's, as in "the run, which <why>"; empty where it is.

    `mlflow run` makes a run for each command. The variable may also be left from an earlier one.

    Raises:
        StoreError: the store does not hold it.
    """
    try:
        run = store.client.get_run(run_id)
    except Exception as error:
        if is_temporary(error):
            raise store_error(store, f"find the run {run_id}", error) from error
        raise unknown_own_run(store.uri, run_id) from error
    if run.info.lifecycle_stage != "active":
        return "has been deleted"
    if run.info.status not in ("RUNNING", "SCHEDULED"):
        return f"has ended ({run.info.status})"
    tags = tags_of(run.data.tags)
    process = {Tag.HOST, Tag.PID, Tag.PROCESS_STARTED} & set(tags)
    own = all(tags[key] == value for key, value in process_tags().items() if key in process)
    return "" if own else "belongs to another process"


def unknown_own_run(uri: str, run_id: str) -> StoreError:
    """The message for a run of MLFLOW_RUN_ID that the store does not hold."""
    return StoreError(
        f"The tracking store {redact(uri)} does not hold the run {run_id}, which MLFLOW_RUN_ID names. If `mlflow run` "
        "was started in another folder, both read a relative address (or none) as a file of their own folder: give an "
        "absolute one, such as MLFLOW_TRACKING_URI=sqlite:////data/mlflow.db. If the variable is left over from "
        "something else: unset MLFLOW_RUN_ID."
    )


def experiment_name(store: Store, experiment_id: str) -> str:
    """The name of an experiment.

    Raises:
        StoreError: there is none with this id.
    """
    try:
        return str(store.client.get_experiment(experiment_id).name)
    except Exception as error:
        raise store_error(store, f"find the experiment {experiment_id} (MLFLOW_EXPERIMENT_ID)", error) from error
