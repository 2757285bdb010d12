"""The run that `mlflow run` creates before it starts a command: used, or closed with a link to what replaces it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from muralab.tracking.address import absolute_uri, sqlite_path
from muralab.tracking.failures import store_error
from muralab.tracking.opening import open_store
from muralab.tracking.pages import run_page
from muralab.tracking.runs import DEFAULT_EXPERIMENT, clean_tags, experiment_of
from muralab.tracking.store import Store
from muralab.tracking.tags import Tag
from muralab.tracking.writer import RunWriter

ENTRY_POINT = "mlflow.project.entryPoint"
KEPT_TAGS = ("mlflow.project.", "mlflow.source.", "mlflow.gitRepoURL")
"""What the tags begin with that a run keeps when another replaces it."""


def take_run(
    store: Store,
    writer: RunWriter,
    *,
    given: str | None,
    experiment: str,
    is_chosen: bool,
    kind: str,
    name: str,
    tags: Mapping[str, str],
) -> str:
    """Adopt the run that `mlflow run` has made for a command, or start one; returns its id.

    Args:
        store: that holds the runs.
        writer: of the run.
        given: the run that `mlflow run` has made, if it has.
        experiment: where a run is started.
        is_chosen: whether the user has named that experiment. If not, a run that `mlflow run` has made in MLflow's
            experiment for runs that were given none is replaced by one in `experiment`: it cannot be moved there.
        kind: see `Tag.KIND`.
        name: of the run.
        tags: of the run.

    Raises:
        StoreError: the store failed, or the given run is unknown.
    """
    if given and (is_chosen or experiment == DEFAULT_EXPERIMENT or not _is_misplaced(store, given)):
        return writer.adopt_run(given, {**tags, Tag.RUN_NAME: name}, kind=kind)
    params, facts = _read_facts(store, given) if given else ({}, {})
    run_id = writer.run_id(writer.start_run(experiment=experiment, kind=kind, name=name, tags=facts | dict(tags)))
    if given:
        writer.log_params(run_id, params)
        where = run_page(experiment_of(store, run_id), run_id)
        note = f"Everything is in [{name}]({where}), in the experiment {experiment}."
        close_empty_run(store, given, f"see {experiment}: {name}", note)
    return run_id


def _is_misplaced(store: Store, run_id: str) -> bool:
    try:
        run = store.client.get_run(run_id)
        experiment = store.client.get_experiment(run.info.experiment_id)
    except Exception as error:
        raise store_error(store, f"find the run {run_id}", error) from error
    return ENTRY_POINT in run.data.tags and str(experiment.name) == DEFAULT_EXPERIMENT


def _read_facts(store: Store, run_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """What `mlflow run` has written into its run: (params, tags)."""
    try:
        data = store.client.get_run(run_id).data
    except Exception as error:
        raise store_error(store, f"read the run {run_id}", error) from error
    return dict(data.params), {key: value for key, value in data.tags.items() if key.startswith(KEPT_TAGS)}


def close_empty_run(store: Store, run_id: str, name: str, note: str, *, status: str = "FINISHED") -> None:
    """End a run that holds nothing, under a name and with a description that say so.

    It cannot be deleted: `mlflow run` sets its status once more when the command ends, and fails where it is deleted.

    Args:
        store: that holds it.
        run_id: its id.
        name: of the run, instead of MLflow's random one.
        note: its description, in Markdown.
        status: FINISHED, or FAILED for a command that was refused.

    Raises:
        StoreError: no such run, or the store failed.
    """
    try:
        tags = clean_tags({Tag.NOTE: note, Tag.RUN_NAME: name})
        for key, value in tags.items():
            store.client.set_tag(run_id, key, value)
        store.client.update_run(run_id, name=tags[Tag.RUN_NAME])
        store.client.set_terminated(run_id, status=status)
    except Exception as error:
        raise store_error(store, f"close the empty run {run_id}", error) from error


def close_refused(tracking_uri: str | None, run_id: str, reason: str) -> None:
    """Close the run that `mlflow run` made for a command that was refused before it logged anything; never raises.

    Args:
        tracking_uri: of the store; None: MLflow's default.
        run_id: the run.
        reason: the error message that the command printed.
    """
    with contextlib.suppress(Exception):  # the message has been printed; whatever the store does adds nothing
        path = sqlite_path(absolute_uri(tracking_uri))
        if path is not None and not path.exists():  # it would be created
            return
        store = open_store(tracking_uri)
        data = store.client.get_run(run_id).data
        if ENTRY_POINT in data.tags and Tag.KIND not in data.tags and not data.metrics:
            command = data.tags[ENTRY_POINT]
            close_empty_run(store, run_id, f"{command}, refused", f"Nothing was started: {reason}", status="FAILED")
