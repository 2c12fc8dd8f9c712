"""Looking ahead in a stream: what comes next is worked on by threads while its predecessor is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Value], Result], inputs: Iterable[Value], *, workers: int, window: int
) -> Generator[Result]:
    """``function`` of every input, in order, computed by threads while the results before it are used.

    An error, of the function or of the inputs, comes at its turn and ends it all. Closing the iterator waits for the
    calls that are under way and drops the rest. Memory: ``window`` results, and the one that is used.

    Args:
        function: called in several threads at once.
        inputs: walked through by whoever takes the results.
        workers: threads.
        window: how many inputs are taken ahead.
    """
    todo = iter(inputs)
    ahead: deque[Future[Result]] = deque()

    def submit() -> None:
        try:
            ahead.append(threads.submit(function, next(todo)))
        except StopIteration:
            pass
        except Exception as error:  # of the inputs
            ahead.append(Future())
            ahead[-1].set_exception(error)

    with ThreadPoolExecutor(workers, thread_name_prefix="tai-ahead") as threads:
        try:
            for _ in range(window):
                submit()
            while ahead:
                result = ahead.popleft().result()
                submit()
                yield result
                del result
        finally:
            for future in ahead:
                future.cancel()
