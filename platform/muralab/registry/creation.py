"""New entries of the model registry, each made once although an answer of the store may be lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muralab.tracking import Store
from muralab.tracking.failures import is_forbidden
from muralab.tracking.outage import created_once

MODEL_NAME = "model"


def create_logged_model(store: Store, run_id: str) -> Any:
    """MLflow's entry for a model of a run, in the run's own experiment, status PENDING.

    One that is PENDING already is used: an answer was lost, or the process that made it was killed or interrupted.
    """
    client = store.client
    experiment_id = client.get_run(run_id).info.experiment_id

    def find() -> Any | None:
        return next(iter(pending_models(client, experiment_id, run_id)), None)

    def create() -> Any:
        return client.create_logged_model(experiment_id, name=MODEL_NAME, source_run_id=run_id)

    logged = created_once(find, create, uri=store.uri, patience_s=store.patience_s)
    _log_output(store, run_id, logged.model_id)
    return logged


def pending_models(client: Any, experiment_id: str, run_id: str) -> list[Any]:
    """The entries of a run's models that are neither READY nor FAILED, oldest first."""
    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    pending = [one for one in found if one.name == MODEL_NAME and str(one.status) == "PENDING"]
    return sorted(pending, key=lambda one: (one.creation_timestamp, one.model_id))


def _log_output(store: Store, run_id: str, model_id: str) -> None:
    """Name a model as an output of its run."""
    from mlflow.entities import LoggedModelOutput

    client = store.client

    def find() -> bool | None:
        outputs = client.get_run(run_id).outputs
        known = [] if outputs is None else [one.model_id for one in outputs.model_outputs]
        return True if model_id in known else None

    def create() -> bool:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        return True

    created_once(find, create, uri=store.uri, patience_s=store.patience_s)


def publish(
    store: Store,
    name: str,
    logged: Any,
    run_id: str,
    description: str,
    tags: Mapping[str, str],
    *,
    alias: str | None = None,
) -> str:
    """Make a logged model the newest version of a registered model; returns the version's number.

    The model is READY at the very end: whatever ends this process before, the next registration of the run finds it
    PENDING, and its version.

    Args:
        store: takes the version.
        name: of the registered model.
        logged: from `create_logged_model`, with its artifacts.
        run_id: the run that trained it.
        description: of the version.
        tags: of the version.
        alias: moves to the version; None leaves the aliases unchanged.
    """
    version = create_version(store, name, logged, run_id, description, tags)
    if alias:
        store.client.set_registered_model_alias(name, alias, version)
    store.client.finalize_logged_model(logged.model_id, "READY")
    return version


def create_version(store: Store, name: str, logged: Any, run_id: str, description: str, tags: Mapping[str, str]) -> str:
    """A new version of a registered model, which is created where there is none yet; returns the version's number.

    The version that an interrupted registration has made of the same logged model is used, with the description and the
    tags of this one.
    """
    client, source = store.client, f"models:/{logged.model_id}"
    _create_registered_model(store, name)

    def find() -> str | None:
        return next(iter(versions_of(client, name, run_id, source)), None)

    def create() -> str:
        made = client.create_model_version(
            name, source=source, run_id=run_id, tags=dict(tags), description=description, model_id=logged.model_id
        )
        return str(made.version)

    version = find()
    if version is None:
        version = created_once(find, create, uri=store.uri, patience_s=store.patience_s)
    else:
        _describe_version(client, name, version, description, tags)
    _remove_doubles(client, name, run_id, logged, version)
    return version


def _describe_version(client: Any, name: str, version: str, description: str, tags: Mapping[str, str]) -> None:
    client.update_model_version(name, version, description)
    for key in client.get_model_version(name, version).tags:
        if key not in tags:
            client.delete_model_version_tag(name, version, key)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def versions_of(client: Any, name: str, run_id: str, source: str) -> list[str]:
    """The versions of a registered model that were made from one logged model, lowest first."""
    found = client.search_model_versions(f"run_id='{run_id}'")
    own = [one for one in found if one.name == name and one.source == source]
    return [str(number) for number in sorted(int(one.version) for one in own)]


def _create_registered_model(store: Store, name: str) -> None:
    from mlflow.exceptions import MlflowException

    client = store.client

    def find() -> bool | None:
        return True if client.search_registered_models(f"name='{name}'") else None

    def create() -> bool:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return True

    created_once(find, create, uri=store.uri, patience_s=store.patience_s)


def _remove_doubles(client: Any, name: str, run_id: str, logged: Any, version: str) -> None:
    """Remove what a request made whose answer came too late, after another attempt had made it as well."""
    for other in versions_of(client, name, run_id, f"models:/{logged.model_id}"):
        if other != version:
            _delete_version(client, name, other)
    for model in pending_models(client, logged.experiment_id, run_id):
        if model.model_id != logged.model_id:
            client.finalize_logged_model(model.model_id, "FAILED")


def _delete_version(client: Any, name: str, version: str) -> None:
    """Delete a version; it stays where a user may only add versions, as with EDIT on a server with users."""
    try:
        client.delete_model_version(name, version)
    except Exception as error:
        if not is_forbidden(error):
            raise
