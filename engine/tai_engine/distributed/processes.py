"""Several processes of this machine, one per device: tasks are handed out, results come back, the dead are replaced."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, Self

from tai_engine.decoding.feed import carried_bytes
from tai_engine.decoding.process import words_of_end
from tai_engine.distributed.child import Said, send_task, work
from tai_engine.distributed.work import MAX_ATTEMPTS, Recipe, Result, Task, Workplace, died_over
from tai_engine.errors import UserError

logger = logging.getLogger(__name__)

MAX_HELD_BYTES = 64 * 2**20
"""Of files that the items of all tasks carry which processes hold, beside the first one of each."""
_PATIENCE = 10.0  # seconds that a process may take to end


@dataclass
class _Held(Generic[Task]):
    """A task that is under way or waits to be given again."""

    task: Task
    bytes: int
    attempts: int = 0


@dataclass
class _Seat(Generic[Task]):
    """A device and the process that has it at present."""

    place: Workplace
    process: BaseProcess
    connection: Connection
    held: deque[_Held[Task]] = field(default_factory=deque)
    is_ready: bool = False
    failures: int = 0  # processes that died one after the other without a result


class ProcessPool(Generic[Task, Result]):
    """One process per device, each with a worker of its own; use it in a ``with`` statement.

    Processes are spawned, never forked: CUDA and threads do not survive a fork. A process that dies is replaced and its
    tasks are given again; a task over which three have died ends the run, a device on which three in succession gave
    nothing is left out.

    Memory, beside the workers: ``window`` tasks per process, twice; of tasks whose items carry files, one per process
    and more only while all that are held carry less than `MAX_HELD_BYTES`.

    Args:
        recipe: makes the worker of each process; it is pickled.
        devices: one process each; a name may come several times.
        window: tasks that a process holds at once, so that it never waits for the next.
    """

    def __init__(self, recipe: Recipe[Task, Result], devices: Sequence[str], *, window: int = 2) -> None:
        if not devices:
            raise ValueError("no devices: at least one is needed")
        self._recipe = recipe
        self._devices = tuple(devices)
        self._window = window
        self._context = multiprocessing.get_context("spawn")
        self._seats: list[_Seat[Task]] = []
        self._waiting: deque[_Held[Task]] = deque()
        self._description: object = None
        self._is_described = False

    def __enter__(self) -> Self:
        try:
            for device in self._devices:
                self._seats.append(self._start(Workplace(device, len(self._devices))))
        except BaseException:
            self._end_all(at_once=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is still under way was given up by the caller.
        self._end_all(at_once=kind is not None or any(seat.held for seat in self._seats))

    def describe(self) -> Any:
        """What the workers say of themselves; waits until the first one is ready.

        Raises:
            UserError: that a worker raised, or if no process can be started.
        """
        while not self._is_described:
            for _ in self._events():
                raise RuntimeError("a result came before any task was given")
        return self._description

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of all tasks, in whatever order they are ready.

        Args:
            tasks: taken as fast as they are done.

        Raises:
            UserError: that a worker raised, for a task over which three processes died, or when no device is left.
        """
        source = iter(tasks)
        while True:
            self._hand_out(source)
            if not self._waiting and not any(seat.held for seat in self._seats) and self._is_described:
                return
            yield from self._events()

    def _hand_out(self, source: Iterator[Task]) -> None:
        # First one for each, then a second: the last tasks of a run are spread over all.
        for depth in range(1, self._window + 1):
            for seat in self._seats:
                if not seat.is_ready or len(seat.held) >= depth:
                    continue
                if seat.held and sum(held.bytes for seat in self._seats for held in seat.held) >= MAX_HELD_BYTES:
                    return
                held = self._waiting.popleft() if self._waiting else next(map(_held, source), None)
                if held is None:
                    return
                seat.held.append(held)
                # A process that is gone is noticed by its sentinel, and everything that it holds is given again.
                with contextlib.suppress(OSError):
                    send_task(seat.connection, held.task)

    def _events(self) -> Iterator[Result]:
        """Wait for messages and deaths; results among them are given out."""
        by_handle: dict[Any, _Seat[Task]] = {}
        for seat in self._seats:
            by_handle |= {seat.connection: seat, seat.process.sentinel: seat}
        ready = wait(list(by_handle))
        for seat in {id(by_handle[handle]): by_handle[handle] for handle in ready}.values():
            # Whether it is dead is asked first: what it sent before it died is read all the same.
            is_dead = not seat.process.is_alive()
            cause = ""
            try:
                while seat.connection.poll():
                    said, value = seat.connection.recv()
                    if said is Said.RESULT:
                        seat.failures = 0
                        seat.held.popleft()
                        yield value
                    elif said is Said.READY:
                        seat.is_ready = True
                        self._compare(value, seat.place)
                    elif said is Said.MISTAKE:
                        raise UserError(value)
                    else:
                        logger.warning("The worker on %s failed:\n%s", seat.place.device, value)
                        cause = value.strip().rpartition("\n")[2]
                        is_dead = True
            except (EOFError, OSError):
                is_dead = True  # cut off in the middle of a message
            if is_dead:
                self._bury(seat, cause)

    def _compare(self, description: object, place: Workplace) -> None:
        if not self._is_described:
            self._description, self._is_described = description, True
        elif description != self._description:
            raise UserError(
                f"The worker on {place.device} makes other features ({description}) than the first one "
                f"({self._description}); give all devices the same model and options."
            )

    def _bury(self, seat: _Seat[Task], cause: str) -> None:
        """Put what a dead process held back, and a new process in its place."""
        self._end(seat)
        cause = cause or _cause_of_death(seat.process.exitcode)
        seat.failures += 1
        for held in seat.held:
            held.attempts += 1
            if held.attempts >= MAX_ATTEMPTS:
                raise UserError(died_over(_name(held.task), f"{cause} on {seat.place.device}"))
        self._waiting.extend(seat.held)
        where = self._seats.index(seat)
        if seat.failures >= MAX_ATTEMPTS:
            del self._seats[where]
            logger.warning("The device %s is left out: %s", seat.place.device, cause)
            if not self._seats:
                raise UserError(
                    f"No process stays alive on {', '.join(dict.fromkeys(self._devices))}; the last one ended so: "
                    f"{cause}; try one device with --devices, a smaller --batch-size or fewer --workers."
                )
            return
        logger.warning("The process on %s ended (%s); another one takes its place", seat.place.device, cause)
        self._seats[where] = self._start(seat.place)
        self._seats[where].failures = seat.failures

    def _start(self, place: Workplace) -> _Seat[Task]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(self._recipe, place, theirs), name=f"tai {place.device}")
        # Blocked across the start, so that Ctrl-C cannot hit a child before it ignores it; ours comes right after.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        return _Seat(place, process, ours)

    def _end_all(self, at_once: bool) -> None:
        for seat in self._seats:
            with contextlib.suppress(OSError):
                if at_once:
                    seat.process.terminate()
                else:
                    seat.connection.send(None)
        for seat in self._seats:
            self._end(seat)
        self._seats.clear()

    def _end(self, seat: _Seat[Task]) -> None:
        """Wait for a process that was told to end, and insist."""
        seat.process.join(_PATIENCE)
        for insist in (seat.process.terminate, seat.process.kill):
            if seat.process.exitcode is None:
                insist()
                seat.process.join(_PATIENCE)
        seat.connection.close()


def _held(task: Task) -> _Held[Task]:
    items = getattr(task, "items", ())
    return _Held(task, sum(map(carried_bytes, items)) if isinstance(items, tuple) else 0)


def _name(task: object) -> str:
    group = getattr(task, "group", None)
    return repr(task)[:80] if group is None else f"group {group} of the store"


def _cause_of_death(exit_code: int | None) -> str:
    name = words_of_end(exit_code)
    if exit_code is None or exit_code >= 0:
        return name
    lack = ", which the system sends when memory runs out" if name == "SIGKILL" else ""
    return f"killed by {name}{lack}"
