"""`registry_lock`: one at a time, whoever was killed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from muralab.errors import StoreUnavailableError
from muralab.registry import registry_lock as locks
from muralab.registry.evaluation_count import count_test_evaluations, record_evaluations
from muralab.registry.registry_lock import registry_lock
from muralab.tracking import Store
from muralab.tracking.patient_sketch import sketch_patients
from muralab.tracking.tags import Tag
from tests.fixtures.turns import holders_seen


@pytest.fixture
def name(store: Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registered model of a test's own; it holds no claim afterwards."""
    monkeypatch.setattr(locks, "POLL_S", 0.02)
    store.client.create_registered_model(request.node.name)
    yield request.node.name
    assert store.client.get_registered_model(request.node.name).tags.keys().isdisjoint(claims(store, request.node.name))


def claims(store: Store, name: str) -> set[str]:
    return {key for key in store.client.get_registered_model(name).tags if key.startswith(Tag.PROMOTING)}


def test_many_take_turns(store: Store, name: str) -> None:
    assert holders_seen(store, name, threads=6, turns=12, pause_s=0.03) == [1] * 12


def test_a_claim_of_a_killed_process_expires(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "EXPIRES_S", 0.2)
    store.client.set_registered_model_tag(name, f"{Tag.PROMOTING}0", "gone 1")
    with registry_lock(store, name):
        assert f"{Tag.PROMOTING}0" not in claims(store, name)


def test_a_claim_that_stays_is_an_error(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    store.client.set_registered_model_tag(name, f"{Tag.PROMOTING}0", "busy 1")
    with pytest.raises(StoreUnavailableError, match="changed by other commands"), registry_lock(store, name):
        pass
    store.client.delete_registered_model_tag(name, f"{Tag.PROMOTING}0")


def test_counts_of_two_machines_add_up(store: Store, name: str, train_run) -> None:
    fingerprint = f"of-{name}"
    for skill in (0.5, 0.6, 0.7):
        run = train_run(skill)
        store.client.set_tag(run, "mlflow.muralab.test_fingerprint", fingerprint)
        store.client.set_tag(run, "mlflow.muralab.test_patients", sketch_patients([name]))
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: record_evaluations(store, name, fingerprint), range(3))) == [3, 3, 3]
    assert count_test_evaluations(store, name, fingerprint) == 3
