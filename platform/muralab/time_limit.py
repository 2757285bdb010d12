"""A limit for calls that have none of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(limit_s: float, action: Callable[[], T]) -> T:
    """The result of a call, which runs in a thread of its own; one that takes longer is left to itself.

    Args:
        limit_s: the longest wait.
        action: what is called; its errors are raised here.

    Raises:
        TimeoutError: it has not returned by then.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="limited", daemon=True)  # a pool's thread would be waited for at exit
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit_s:g} s")
    return results[0]
