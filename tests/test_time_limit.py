"""Calls with a limit."""

from __future__ import annotations

import threading

import pytest

from muralab.time_limit import within


def test_results_and_errors_are_those_of_the_call() -> None:
    def fail() -> None:
        raise ValueError("no")

    assert within(60, lambda: None) is None
    assert within(60, lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        within(60, fail)


def test_a_call_that_hangs_is_left() -> None:
    ended = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        within(0.1, ended.wait)
    ended.set()
