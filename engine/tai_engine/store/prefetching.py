"""Reading ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Place = TypeVar("Place")
Result = TypeVar("Result")


def prefetched(read: Callable[[Place], Result], places: Iterable[Place]) -> Iterator[Result]:
    """``read`` of every place in order, the next one read by a thread while its predecessor is worked on.

    ``places`` is gone through by that thread. What reading raises comes at its turn. Memory: two results.
    """
    todo = iter(places)
    nothing = object()

    def step() -> object:
        for place in todo:
            return read(place)
        return nothing

    with ThreadPoolExecutor(1, thread_name_prefix="tai-ahead") as thread:
        future = thread.submit(step)
        while (result := future.result()) is not nothing:
            future = thread.submit(step)
            # Leaving here for good, by an error or because no more is wanted, waits for the read that is under way.
            yield result  # type: ignore[misc]
            del result
