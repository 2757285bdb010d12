"""Work in threads, for functions that release the interpreter lock: decoding, hashing, file and network access."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from muralab.processor import count_cpus

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None, name: str = "muralab"
) -> Generator[Result, None, None]:
    """Apply a function to items in threads and yield the results in order.

    At most two results more than there are threads are computed ahead of the reader. An error, or closing the
    generator, cancels what has not started and waits for what has.

    Args:
        function: called in a thread.
        items: its arguments; read in the calling thread, only as far ahead as needed.
        workers: threads; None takes one per core that this process may use, 0 calls the function in the calling thread.
        name: prefix of the threads' names.

    Raises:
        Exception: whatever the function raises, in the order of the items.
    """
    if workers == 0:
        yield from map(function, items)
        return
    n_threads = workers or count_cpus()
    with ThreadPoolExecutor(n_threads, thread_name_prefix=name) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > n_threads + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
