"""Entries of the registry are made once, although an answer may be lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muralab.registry.creation import create_logged_model, create_version, pending_models
from muralab.tracking import Store, open_store, start_run
from muralab.tracking import outage as outage_module


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, with pauses that take no time."""
    monkeypatch.setattr(outage_module.time, "sleep", lambda _: None)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")  # where a local registry looks
    return open_store(f"sqlite:///{tmp_path}/mlflow.db")


def lose_answers(store: Store, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Carry out the first call of each method, and lose its answer."""
    client = store.impatient().client

    def losing(call: Callable[..., Any]) -> Callable[..., Any]:
        lost: list[bool] = []

        def once(*arguments: Any, **options: Any) -> Any:
            answer = call(*arguments, **options)
            if not lost:
                lost.append(True)
                raise ConnectionError("the answer was lost")
            return answer

        return once

    for name in names:
        monkeypatch.setattr(client, name, losing(getattr(client, name)))


def register(store: Store, run_id: str) -> str:
    logged = create_logged_model(store, run_id)
    return create_version(store, "mura-wrist", logged, run_id, "a card", {"a": "b"})


@pytest.mark.parametrize(
    "names",
    [
        ("create_logged_model",),
        ("log_outputs",),
        ("create_registered_model",),
        ("create_model_version",),
        ("create_logged_model", "log_outputs", "create_registered_model", "create_model_version", "get_run"),
    ],
    ids=lambda names: "+".join(names),
)
def test_a_lost_answer_makes_no_second_model_or_version(
    store: Store, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    run_id = start_run(store, kind="trial", name="t")
    lose_answers(store, monkeypatch, *names)
    assert register(store, run_id) == "1"
    assert len(store.client.search_model_versions("name='mura-wrist'")) == 1
    assert len(store.client.search_logged_models(["0"])) == 1
    assert len(store.client.get_run(run_id).outputs.model_outputs) == 1


def test_a_model_that_a_killed_process_left_is_used(store: Store) -> None:
    run_id = start_run(store, kind="trial", name="t")
    left = store.client.create_logged_model("0", name="model", source_run_id=run_id)
    assert create_logged_model(store, run_id).model_id == left.model_id


def test_what_a_late_request_makes_is_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = start_run(store, kind="trial", name="t")
    logged = create_logged_model(store, run_id)
    store.client.finalize_logged_model(logged.model_id, "READY")
    store.client.create_logged_model("0", name="model", source_run_id=run_id)
    client = store.impatient().client
    make = client.create_model_version
    monkeypatch.setattr(client, "create_model_version", lambda *a, **b: (make(*a, **b), make(*a, **b))[0])
    assert create_version(store, "mura-wrist", logged, run_id, "a card", {}) == "1"
    assert [str(one.version) for one in client.search_model_versions("name='mura-wrist'")] == ["1"]
    assert pending_models(client, "0", run_id) == []


def test_each_run_has_versions_of_its_own(store: Store) -> None:
    first, second = (start_run(store, kind="trial", name=name) for name in "ab")
    assert [register(store, first), register(store, second)] == ["1", "2"]
