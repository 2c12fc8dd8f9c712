"""Tasks in, one item after another out, with no wait for the next task while work is under way."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Protocol

MAX_CARRIED_BYTES = 32 * 2**20
"""Of files that items carry with them while they wait for something, at most; a single one may be larger."""


def carried_bytes(item: Any) -> int:
    """Of the file that an item carries with it, where its source had to read it on its way."""
    return len(getattr(item, "data", None) or b"")


class Parcel:
    """An item on its way to another process, and beside it the file that it carries, which is let go of once sent.

    Attributes:
        item: without its file.
        has_file: whether it carried one.
        file: that, until `sent`; empty if there is none.
    """

    def __init__(self, item: Any) -> None:
        data = getattr(item, "data", None) if is_dataclass(item) and not isinstance(item, type) else None
        self.item = item if data is None else replace(item, data=None)
        self.has_file = data is not None
        self.file: bytes = data or b""

    def sent(self) -> None:
        """The file is where it should be."""
        self.file = b""


@dataclass(frozen=True)
class GroupTask:
    """The items of one commit group that is to be made.

    Attributes:
        group: its number in the store.
        items: in the order of its slots; walked through once.
    """

    group: int
    items: Iterable[Any]


@dataclass(frozen=True)
class Job:
    """An item on its way.

    Attributes:
        group: that it belongs to.
        item: of the source.
        ends_group: whether it is the last one of its group.
    """

    group: int
    item: Any
    ends_group: bool


class Feed(Protocol):
    """Jobs in order, for one who must not be stopped while there is something else to do."""

    def take(self) -> Job | None:
        """The next one; None if it is not there yet.

        Raises:
            StopIteration: when there are no more.
        """

    def wait(self) -> None:
        """Wait until `take` does not give None."""

    def close(self) -> None:
        """No more will be taken."""


def jobs_of(tasks: Iterable[GroupTask]) -> Iterator[Job]:
    """The items of all tasks."""
    for task in tasks:
        items = iter(task.items)
        for item in items:
            for following in items:
                yield Job(task.group, item, ends_group=False)
                item = following
            yield Job(task.group, item, ends_group=True)


class DirectFeed:
    """Takes from tasks that are there as soon as they are asked for."""

    def __init__(self, tasks: Iterable[GroupTask]) -> None:
        self._jobs = jobs_of(tasks)

    def take(self) -> Job | None:
        """See `Feed.take`."""
        return next(self._jobs)

    def wait(self) -> None:
        """There is nothing to wait for."""

    def close(self) -> None:
        """There is nothing to let go of."""


class WaitingFeed:
    """Takes from tasks that come when they come, by way of a thread.

    Memory: two tasks beside the one whose items are being taken.
    """

    def __init__(self, tasks: Iterable[GroupTask]) -> None:
        # Pairs of jobs, or None at the end, and of what went wrong.
        self._tasks: queue.Queue[tuple[Iterator[Job] | None, BaseException | None]] = queue.Queue(maxsize=1)
        self._jobs: Iterator[Job] | None = iter(())
        self._is_closed = False
        threading.Thread(target=self._read, args=(tasks,), name="tasks", daemon=True).start()

    def take(self) -> Job | None:
        """See `Feed.take`."""
        while self._jobs is not None:
            job = next(self._jobs, None)
            if job is not None:
                return job
            try:
                self._next_task(wait=False)
            except queue.Empty:
                return None
        raise StopIteration

    def wait(self) -> None:
        """See `Feed.wait`."""
        self._next_task(wait=True)

    def close(self) -> None:
        """Let the thread end when the tasks do."""
        self._is_closed = True
        with contextlib.suppress(queue.Empty):
            self._tasks.get_nowait()

    def _next_task(self, wait: bool) -> None:
        self._jobs, error = self._tasks.get(block=wait)
        if error is not None:
            raise error

    def _read(self, tasks: Iterable[GroupTask]) -> None:
        try:
            for task in tasks:
                self._tasks.put((jobs_of([task]), None))
                if self._is_closed:
                    return
        except BaseException as error:  # raised where the tasks are worked on
            self._tasks.put((None, error))
        else:
            self._tasks.put((None, None))
