"""The child's side of `tai_engine.distributed.processes`: takes tasks from a pipe, sends results back.

Messages to the child are tasks, see `send_task`, and None when there are no more. Messages to the parent are pairs of a
kind and a value, see `Said`.
"""

from __future__ import annotations

import contextlib
import enum
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from tai_engine.decoding.feed import Parcel
from tai_engine.distributed.work import Recipe, Workplace
from tai_engine.errors import UserError

ORPHANED = 3
"""Exit status of a child whose parent is gone."""


class Said(enum.Enum):
    """Kinds of messages to the parent, and what comes with them."""

    READY = "what the worker describes"
    RESULT = "the result of the oldest task"
    MISTAKE = "the sentence of a UserError: trying again would not help"
    FAILURE = "the traceback of any other exception; the process ends"


def work(recipe: Recipe[Any, Any], place: Workplace, connection: Connection) -> None:
    """The life of a child process: start a worker, run it on what comes."""
    # Ctrl-C reaches every process of the terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An exception, so that the worker closes what it has open, other processes among it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    tasks: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), name="tasks", daemon=True).start()
    try:
        worker = recipe.start(place)
        connection.send((Said.READY, worker.describe()))
        with contextlib.closing(worker.run(_until_none(tasks))) as results:
            for result in results:
                connection.send((Said.RESULT, result))
    except BrokenPipeError:
        sys.exit(ORPHANED)
    except UserError as error:
        connection.send((Said.MISTAKE, str(error)))
    except Exception:
        connection.send((Said.FAILURE, traceback.format_exc()))
        sys.exit(1)


def send_task(connection: Connection, task: Any) -> None:
    """Send a task, and after it, each by itself, the files that its items carry: pickled, they would be there twice."""
    items = getattr(task, "items", ())
    parcels = list(map(Parcel, items)) if isinstance(items, tuple) else []
    if not any(parcel.has_file for parcel in parcels):
        connection.send((task, ()))
        return
    light = replace(task, items=tuple(parcel.item for parcel in parcels))
    connection.send((light, tuple(parcel.has_file for parcel in parcels)))
    for parcel in parcels:
        if parcel.has_file:
            connection.send_bytes(parcel.file)


def receive_task(connection: Connection) -> list[Any] | None:
    """What `send_task` sent, in a list to be taken from, so that nothing else holds it; None for None."""
    message = connection.recv()
    if message is None:
        return None
    task, have_files = message
    if have_files:
        items = (
            replace(item, data=connection.recv_bytes()) if has_file else item
            for item, has_file in zip(task.items, have_files, strict=True)
        )
        task = replace(task, items=tuple(items))
    return [task]


def _until_none(tasks: queue.SimpleQueue[list[Any] | None]) -> Iterator[Any]:
    while (message := tasks.get()) is not None:
        yield message.pop()


def _receive(connection: Connection, tasks: queue.SimpleQueue[list[Any] | None]) -> None:
    """Empty the pipe at once, so that the parent never waits for a child that computes."""
    try:
        while True:
            message = receive_task(connection)
            tasks.put(message)
            if message is None:
                return
    except (EOFError, OSError):
        # The parent is gone, and its lock with it: whoever goes on with the store must not find us writing.
        os._exit(ORPHANED)
