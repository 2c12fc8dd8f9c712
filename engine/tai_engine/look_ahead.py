"""Looking ahead in a stream: what comes next is worked on by threads while its predecessor is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Value], Result],
    inputs: Iterable[Value],
    *,
    workers: int,
    window: int,
    bytes_of: Callable[[Value], int] = lambda _: 0,
    max_bytes: int = 1,
) -> Generator[Result]:
    """``function`` of every input, in order, computed by threads while the results before it are used.

    An error, of the function or of the inputs, comes at its turn and ends it all. Closing the iterator waits for the
    calls that are under way and drops the rest. Memory: ``window`` results, and the one that is used; of large
    inputs, ``max_bytes`` and one more.

    Args:
        function: called in several threads at once.
        inputs: walked through by whoever takes the results.
        workers: threads.
        window: how many inputs are taken ahead, at most.
        bytes_of: what an input holds.
        max_bytes: while the inputs that were taken ahead hold so many bytes, no other is taken.
    """
    todo = iter(inputs)
    ahead: deque[tuple[Future[Result], int]] = deque()

    def submit() -> bool:
        """Whether there was another input."""
        future: Future[Result]
        size = 0
        try:
            value = next(todo)
            size = bytes_of(value)
            future = threads.submit(function, value)
        except StopIteration:
            return False
        except Exception as error:  # of the inputs
            future = Future()
            future.set_exception(error)
        ahead.append((future, size))
        return True

    def fill() -> None:
        while len(ahead) < window and sum(size for _, size in ahead) < max_bytes and submit():
            pass

    with ThreadPoolExecutor(workers, thread_name_prefix="tai-ahead") as threads:
        try:
            fill()
            while ahead:
                result = ahead.popleft()[0].result()
                fill()
                yield result
                del result
        finally:
            for future, _ in ahead:
                future.cancel()
