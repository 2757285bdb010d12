"""Waiting for a store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muralab.errors import StoreError
from muralab.tracking import Store
from muralab.tracking import outage as outage_module
from muralab.tracking.outage import Outage, Pauses, created_once, retried


def flaky(times: int, error: Exception) -> Callable[[], int]:
    """A call that fails some times and then returns how often it was made."""
    calls = [0]

    def call(**_: object) -> int:
        calls[0] += 1
        if calls[0] <= times:
            raise error
        return calls[0]

    return call


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr(outage_module.time, "sleep", pauses.append)
    return pauses


def test_pauses_double_up_to_a_limit() -> None:
    pauses = Pauses()
    assert [pauses.next_s() for _ in range(7)] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_a_temporary_failure_is_retried(slept: list[float]) -> None:
    assert retried(flaky(3, ConnectionError()), outage=Outage("u"), patience_s=60) == 4
    assert slept == pytest.approx([0.2, 0.4, 0.8])


@pytest.mark.parametrize(("error", "patience_s"), [(ValueError("bug"), 60), (ConnectionError("away"), 0)])
def test_a_bug_is_not_retried_and_patience_ends(slept: list[float], error: Exception, patience_s: float) -> None:
    with pytest.raises(type(error)):
        retried(flaky(1, error), outage=Outage("u"), patience_s=patience_s)
    assert slept == []


def test_an_outage_lasts_until_the_store_answers() -> None:
    outage = Outage("u")
    outage.failed(ConnectionError())
    since_s = outage.since_s
    outage.failed(ConnectionError())
    assert outage.since_s == since_s is not None
    outage.answered()
    assert outage.since_s is None


def test_a_client_waits_for_its_store(local: Store, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = local.client._client
    answer = flaky(2, ConnectionError())
    monkeypatch.setattr(plain, "search_experiments", answer)
    assert local.client.search_experiments() == 3
    monkeypatch.setattr(plain, "create_run", flaky(1, ConnectionError()))
    with pytest.raises(ConnectionError):  # it might make two
        local.client.create_run(experiment_id="0")


def test_what_a_lost_answer_made_is_found(slept: list[float]) -> None:
    made: list[str] = []

    def create() -> str:
        made.append("version 1")
        raise ConnectionError("the answer was lost")

    found = created_once(lambda: made[0] if made else None, create, uri="u", patience_s=60)
    assert (found, made) == ("version 1", ["version 1"])


def test_what_cannot_be_made_is_an_error(slept: list[float]) -> None:
    with pytest.raises(StoreError):
        created_once(lambda: None, flaky(1, StoreError("no")), uri="u", patience_s=60)
