"""A store and its clients."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

from muralab.tracking import Store, open_store


def test_another_process_gets_an_equal_store(local: Store) -> None:
    copy = pickle.loads(pickle.dumps(local))
    assert copy == local
    assert copy.client.search_experiments()


@pytest.mark.parametrize(
    ("uri", "remote"),
    [("http://lab", True), ("https://lab", True), ("databricks://lab", True), ("sqlite:////a.db", False)],
)
def test_servers_are_remote(uri: str, remote: bool) -> None:
    assert Store(uri=uri).is_remote == remote


def test_a_client_makes_each_call_once(local: Store) -> None:
    assert local.client
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


def test_models_are_registered_in_the_registry_and_runs_are_not(
    local: Store, empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "models.db")
    store = open_store(local.uri, registry_uri=f"sqlite:///{tmp_path}/models.db")
    store.client.create_registered_model("mura-wrist")
    store.client.create_run("0")
    assert local.client.search_registered_models() == []
    assert len(local.client.search_runs(["0"])) == 1
