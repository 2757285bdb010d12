"""Work in threads: order, limits, cancellation."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from muralab.threads import map_in_threads


@pytest.mark.parametrize("workers", [0, 1, 3, None])
def test_results_keep_the_order_of_the_items(workers):
    def slow_first(n: int) -> int:
        time.sleep(0.02 * (n == 0))
        return n * n

    assert list(map_in_threads(slow_first, range(20), workers=workers)) == [n * n for n in range(20)]


def test_items_are_taken_only_a_little_ahead():
    items = itertools.count()
    results = map_in_threads(lambda n: n, items, workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert next(items) <= 3 + 2 + 1
    results.close()


def test_an_error_cancels_what_has_not_started():
    started = []

    def fail(n: int) -> None:
        started.append(n)
        raise ValueError(f"item {n}")

    with pytest.raises(ValueError, match="item 0"):
        list(map_in_threads(fail, range(100), workers=1))
    assert len(started) < 5


def test_closing_ends_the_threads():
    results = map_in_threads(lambda n: n, range(100), workers=2, name="closing-test")
    next(results)
    results.close()
    assert not any(thread.name.startswith("closing-test") for thread in threading.enumerate())
