"""Entries of the registry are made once, although an answer may be lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muralab.registry.creation import create_logged_model, create_version, pending_models, publish
from muralab.tracking import Store, open_store, start_run
from muralab.tracking import outage as outage_module


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, with pauses that take no time."""
    monkeypatch.setattr(outage_module.time, "sleep", lambda _: None)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")  # where a local registry looks
    return open_store(f"sqlite:///{tmp_path}/mlflow.db")


def mlflow_client(store: Store) -> Any:
    """The client that every `store.client` wraps anew."""
    return store.client._client


def lose_answers(store: Store, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Carry out the first call of each method, and lose its answer; returns the calls that were lost."""
    client = mlflow_client(store)

    lost: list[str] = []

    def losing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def once(*arguments: Any, **options: Any) -> Any:
            answer = call(*arguments, **options)
            if name not in lost:
                lost.append(name)
                raise ConnectionError("the answer was lost")
            return answer

        return once

    for name in names:
        monkeypatch.setattr(client, name, losing(name, getattr(client, name)))
    return lost


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
    lost = lose_answers(store, monkeypatch, *names)
    assert register(store, run_id) == "1"
    assert set(lost) == set(names)
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
    client = mlflow_client(store)
    make = client.create_model_version
    monkeypatch.setattr(client, "create_model_version", lambda *a, **b: (make(*a, **b), make(*a, **b))[0])
    assert create_version(store, "mura-wrist", logged, run_id, "a card", {}) == "1"
    assert [str(one.version) for one in client.search_model_versions("name='mura-wrist'")] == ["1"]
    assert pending_models(client, "0", run_id) == []


def test_each_run_has_versions_of_its_own(store: Store) -> None:
    first, second = (start_run(store, kind="trial", name=name) for name in "ab")
    assert [register(store, first), register(store, second)] == ["1", "2"]


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "name",
    [
        "create_logged_model", "log_outputs", "create_registered_model", "create_model_version",
        "set_registered_model_alias", "finalize_logged_model",
    ],
)  # fmt: skip
def test_the_next_registration_uses_what_an_interrupted_one_made(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, is_done: bool
) -> None:
    run_id = start_run(store, kind="trial", name="t")
    client = mlflow_client(store)
    made = getattr(client, name)

    def interrupt(*arguments: Any, **options: Any) -> None:
        if is_done:
            made(*arguments, **options)
        raise KeyboardInterrupt

    def register_as_champion(card: str, **tags: str) -> str:
        logged = create_logged_model(store, run_id)
        return publish(store, "mura-wrist", logged, run_id, card, tags, alias="champion")

    with monkeypatch.context() as patched:
        patched.setattr(client, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            register_as_champion("an earlier card", part="wrist", engine="fast")
    is_complete = is_done and name == "finalize_logged_model"
    if not is_complete:
        assert register_as_champion("a card", part="hand") == "1"
    (version,) = client.search_model_versions("name='mura-wrist'")
    (logged,) = client.search_logged_models(["0"])
    assert (str(logged.status), version.source) == ("READY", f"models:/{logged.model_id}")
    assert version.description == ("an earlier card" if is_complete else "a card")
    assert version.tags == ({"part": "wrist", "engine": "fast"} if is_complete else {"part": "hand"})
    assert str(client.get_model_version_by_alias("mura-wrist", "champion").version) == "1"
    assert len(client.get_run(run_id).outputs.model_outputs) == 1
