"""Pictures decoded ahead of whoever asks, in order, by processes that can be replaced.

A picture that crashes its process or takes too long fails alone: another process takes the place of the first. Pixels
come back in memory without a name, so that nothing is left behind however a run ends.
"""

from __future__ import annotations

import mmap
import os
import pickle
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from tai_engine.decoding.feed import MAX_CARRIED_BYTES, Feed, Job, Parcel
from tai_engine.decoding.process import WorkerProcess, anonymous_file, cannot_start, spare
from tai_engine.decoding.worker import Outcome, Preparation


@dataclass(frozen=True)
class Decoded:
    """A picture that was read and decoded, or failed.

    Attributes:
        job: which one; its item is without the file that it may have carried.
        outcome: what became of it.
        pixels: uint8 [3, S, S] if all went well; valid until the next picture is asked for.
    """

    job: Job
    outcome: Outcome
    pixels: np.ndarray | None


_Ahead: TypeAlias = tuple[Job, Parcel, int, Future[Outcome]]
"""A job without its file, that, the slot of its pixels, and what becomes of it."""


class DecodePool:
    """Decodes in processes, until it is closed. Each is started when there is something for it to do.

    Memory: the pixels of ``window`` pictures; of files that items carry and no worker has yet, `MAX_CARRIED_BYTES` and
    one more; and in each worker a file and its decoded picture. A process has 40 MB of its own, and keeps up to 64 MB
    between pictures.

    Args:
        prepare: reads and decodes an item; pickled (WorkerStartError if that cannot be).
        workers: how many.
        window: pictures that are decoded, or being decoded, at any time.
        timeout_seconds: a process that takes longer over one picture is ended; 0 is no limit.
    """

    def __init__(self, prepare: Preparation, *, workers: int, window: int, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._start_message = _start_message(prepare, window, timeout_seconds)
        shape = (window, *prepare.to_pixels.shape)
        self._memory: int | None = anonymous_file(int(np.prod(shape)))
        self._slots = np.frombuffer(mmap.mmap(self._memory, int(np.prod(shape))), np.uint8).reshape(shape)
        self._free_slots = deque(range(window))
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._processes: set[WorkerProcess] = set()
        self._is_closed = False

    def close(self) -> None:
        """End the processes at once. What was not asked for is dropped."""
        with self._lock:
            self._is_closed = True
            for process in self._processes:
                process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.close()
        self._processes.clear()
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def decode(self, feed: Feed) -> Generator[Decoded | None]:
        """Every item of ``feed``, in order; None whenever all that came has been given out and no more is there yet.

        Raises:
            WorkerStartError: if processes cannot be started.
        """
        ahead: deque[_Ahead] = deque()
        has_more = True
        while has_more or ahead:
            while has_more and self._free_slots and _bytes_of(ahead) < MAX_CARRIED_BYTES:
                try:
                    job = feed.take()
                except StopIteration:
                    has_more = False
                    break
                if job is None:
                    break
                parcel, slot = Parcel(job.item), self._free_slots.pop()
                job = replace(job, item=parcel.item)
                ahead.append((job, parcel, slot, self._threads.submit(self._outcome, parcel, slot)))
            if ahead:
                job, _, slot, future = ahead.popleft()
                outcome = future.result()
                yield Decoded(job, outcome, self._slots[slot] if outcome.reason is None else None)
                self._free_slots.append(slot)
            elif has_more:
                yield None
                feed.wait()

    def _outcome(self, parcel: Parcel, slot: int) -> Outcome:
        """In a thread: have its own process do it."""
        process: WorkerProcess | None = getattr(self._own, "process", None)
        # One that died with nothing to do, for want of memory perhaps, costs no picture.
        if process is None or not process.is_alive():
            process = self._replace(process)
        try:
            return process.decode(slot, parcel, self._timeout_seconds)
        finally:
            parcel.sent()  # nobody else will have it

    def _replace(self, old: WorkerProcess | None) -> WorkerProcess:
        """A new process for this thread, ready to work."""
        if old is not None:
            with self._lock:
                self._processes.discard(old)
            old.close()
        with self._lock:
            if self._is_closed or self._memory is None:
                raise RuntimeError("the pool is closed")
            process = self._own.process = spare.take()
            self._processes.add(process)
        process.begin(self._start_message, self._memory)
        return process


def _bytes_of(ahead: Iterable[_Ahead]) -> int:
    """Of the files that no worker has yet."""
    return sum(len(parcel.file) for _, parcel, *_ in ahead)


def _start_message(prepare: Preparation, window: int, timeout_seconds: float) -> bytes:
    try:
        return pickle.dumps((prepare, window, timeout_seconds))
    except Exception as error:  # pickling raises whatever it raises
        raise cannot_start(f"{type(error).__name__}: {error}") from error
