"""Reading ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Place = TypeVar("Place")
Result = TypeVar("Result")

AHEAD = 2
"""So many results are made, at the same time, while another one is worked on."""


def prefetched(read: Callable[[Place], Result], places: Iterable[Place]) -> Iterator[Result]:
    """``read`` of every place in order; the next ones are read by two threads while their predecessor is worked on.

    An error comes at its turn and ends it all. Leaving early waits for the reads that are under way. Memory: three
    results.
    """
    todo = iter(places)
    futures: deque[Future[Result]] = deque()

    def submit() -> None:
        try:
            futures.append(threads.submit(read, next(todo)))
        except StopIteration:
            pass
        except Exception as error:  # of the places
            futures.append(Future())
            futures[-1].set_exception(error)

    with ThreadPoolExecutor(AHEAD, thread_name_prefix="tai-ahead") as threads:
        try:
            for _ in range(AHEAD):
                submit()
            while futures:
                result = futures.popleft().result()
                submit()
                yield result
                del result
        finally:
            for future in futures:
                future.cancel()
