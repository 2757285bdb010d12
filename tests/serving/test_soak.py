"""The soak's judge finds what it is there to find, and its clients rest when told to."""

from __future__ import annotations

import threading

import pytest

from bench.serving_models import Server
from bench.watch import Turnstile, Watch, judge

FLAT = [600.0] * 50


def watched(*, memory: list[float] = FLAT, at_rest: list[float] = FLAT) -> Watch:
    return Watch(Server("http://127.0.0.1", 1.0, 0), lenient=False, memory=memory, at_rest=at_rest)


def test_flat_memory_is_no_fault():
    assert judge(watched())[1] == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"at_rest": [600.0 + i for i in range(50)]}, "at rest, memory grew by 30 MiB"),
        ({"memory": [600.0 + 4 * i for i in range(50)]}, "under load, memory grew by 120 MiB"),
        ({"memory": [*FLAT, 1700.0, *FLAT]}, "memory reached 1700 MiB"),
    ],
    ids=str,
)
def test_memory_that_grows_is_a_fault(values, words):
    (fault,) = judge(watched(**values))[1]
    assert words in fault


def test_a_rest_begins_when_all_is_answered_and_holds_the_next_request_back():
    turnstile, order = Turnstile(), []
    first_is_in, may_end, resting = threading.Event(), threading.Event(), threading.Event()

    def ask_first() -> None:
        with turnstile.request():
            first_is_in.set()
            may_end.wait(5)
            order.append("first answered")

    def ask_second() -> None:
        resting.wait(5)
        with turnstile.request():
            order.append("second let through")

    clients = [threading.Thread(target=ask) for ask in (ask_first, ask_second)]
    for client in clients:
        client.start()
    first_is_in.wait(5)
    threading.Timer(0.1, may_end.set).start()
    with turnstile.rest():
        resting.set()
        clients[1].join(0.2)
        order.append("rested")
    for client in clients:
        client.join(5)
    assert order == ["first answered", "rested", "second let through"]
