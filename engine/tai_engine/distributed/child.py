"""The child's side of `tai_engine.distributed.processes`: takes tasks from a pipe, sends results back.

Messages to the child are ``(task,)``, and None when there are no more. Messages to the parent are pairs of a kind and a
value, see `Said`.
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
from multiprocessing.connection import Connection
from typing import Any

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
    tasks: queue.SimpleQueue[tuple[Any] | None] = queue.SimpleQueue()
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


def _until_none(tasks: queue.SimpleQueue[tuple[Any] | None]) -> Iterator[Any]:
    while (message := tasks.get()) is not None:
        yield message[0]


def _receive(connection: Connection, tasks: queue.SimpleQueue[tuple[Any] | None]) -> None:
    """Empty the pipe at once, so that the parent never waits for a child that computes."""
    try:
        while True:
            message = connection.recv()
            tasks.put(message)
            if message is None:
                return
    except (EOFError, OSError):
        # The parent is gone, and its lock with it: whoever goes on with the store must not find us writing.
        os._exit(ORPHANED)
