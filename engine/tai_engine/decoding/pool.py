"""Pictures decoded ahead of whoever asks, in order, by processes that can be replaced.

A picture that crashes its process or takes too long fails alone: another process takes the place of the first.
Workers are bare processes, not those of `multiprocessing`, which would run the user's main module again and load all
that it imports. Pixels come back in memory without a name, so that nothing is left behind however a run ends.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, Self

import numpy as np

from tai_engine.decoding.feed import Feed, Job
from tai_engine.decoding.worker import READY, Outcome, Preparation, reason_of
from tai_engine.errors import UserError

START_SECONDS = 120.0
"""A worker that is not ready by then cannot be started."""

_ENVIRONMENT = {
    # NumPy would start a thread for every core, in every worker.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc would give the memory of each picture back and fault it in again for the next, a sixth of all the time.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}
_PATIENCE_SECONDS = 5.0  # until a killed process is taken for stuck in the kernel


class WorkerStartError(UserError):
    """Decoding processes cannot be started at all."""


@dataclass(frozen=True)
class Decoded:
    """A picture that was read and decoded, or failed.

    Attributes:
        job: which one.
        outcome: what became of it.
        pixels: uint8 [3, S, S] if all went well; valid until the next picture is asked for.
    """

    job: Job
    outcome: Outcome
    pixels: np.ndarray | None


class DecodePool:
    """Decodes in processes, or in threads of this one; used as a context manager.

    Memory: the pixels of ``window`` pictures, and in each worker a file and its decoded picture; a process has 40 MB of
    its own, and keeps up to 64 MB between pictures.

    Args:
        prepare: reads and decodes an item; pickled where processes do it (WorkerStartError if that cannot be).
        workers: how many.
        window: pictures that are decoded, or being decoded, at any time.
        timeout_seconds: a process that takes longer over one picture is ended; 0 is no limit. Threads know none.
        in_processes: False decodes in threads, where a crash is a crash of all.
    """

    def __init__(
        self, prepare: Preparation, *, workers: int, window: int, timeout_seconds: float, in_processes: bool
    ) -> None:
        self._prepare = prepare
        self._timeout_seconds = timeout_seconds
        shape = (window, *prepare.to_pixels.shape)
        self._memory: int | None = None
        if in_processes:
            self._start_message = _start_message(prepare, window, timeout_seconds)
            self._memory = _anonymous_memory(int(np.prod(shape)))
            self._slots = np.frombuffer(mmap.mmap(self._memory, int(np.prod(shape))), np.uint8).reshape(shape)
        else:
            self._slots = np.empty(shape, np.uint8)
        self._free_slots = deque(range(window))
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._processes: set[_WorkerProcess] = set()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes at once; threads finish the picture that they are at. What was not asked for is dropped."""
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
        ahead: deque[tuple[Job, int, Future[Outcome]]] = deque()
        has_more = True
        while has_more or ahead:
            while has_more and self._free_slots:
                try:
                    job = feed.take()
                except StopIteration:
                    has_more = False
                    break
                if job is None:
                    break
                slot = self._free_slots.popleft()
                ahead.append((job, slot, self._threads.submit(self._outcome, job, slot)))
            if ahead:
                job, slot, future = ahead.popleft()
                outcome = future.result()
                yield Decoded(job, outcome, self._slots[slot] if outcome.reason is None else None)
                self._free_slots.append(slot)
            elif has_more:
                yield None
                feed.wait()

    def _outcome(self, job: Job, slot: int) -> Outcome:
        """In a thread: decode here, or have the thread's own process do it."""
        if self._memory is None:
            return self._prepare(job.item, self._slots[slot])
        process: _WorkerProcess | None = getattr(self._own, "process", None)
        # One that died with nothing to do, for want of memory perhaps, costs no picture.
        if process is None or not process.is_alive():
            process = self._replace(process)
        return process.decode(slot, job.item, self._timeout_seconds)

    def _replace(self, old: _WorkerProcess | None) -> _WorkerProcess:
        """A new process for this thread, ready to work."""
        if old is not None:
            with self._lock:
                self._processes.discard(old)
            old.close()
        with self._lock:
            if self._is_closed or self._memory is None:
                raise RuntimeError("the pool is closed")
            try:
                process = self._own.process = _WorkerProcess(self._memory)
            except OSError as error:  # too many processes, too little memory
                raise _cannot_start(error.strerror) from error
            self._processes.add(process)
        process.begin(self._start_message)
        return process


class _WorkerProcess:
    """One process that decodes (`tai_engine.decoding.worker`), and the channel to it."""

    def __init__(self, memory: int) -> None:
        self._is_over = False
        self._channel, theirs = Pipe()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from tai_engine.decoding.worker import main; "
            f"main({theirs.fileno()}, {memory}, {os.getpid()})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory),
            env={**os.environ, **_ENVIRONMENT},
            process_group=0,  # Ctrl-C is for the parent, which knows what to do
        )
        theirs.close()

    def begin(self, message: bytes) -> None:
        """Tell it how to decode, and wait until it can.

        Raises:
            WorkerStartError: with what the process says.
        """
        answer: object = "they do not answer"
        try:
            self._channel.send_bytes(message)
            if self._channel.poll(START_SECONDS):
                answer = self._channel.recv()
        except (EOFError, OSError):
            answer = self._end()
        if answer != READY:
            self._is_over = True
            raise _cannot_start(answer)

    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self._is_over and self._process.poll() is None

    def decode(self, slot: int, item: Any, timeout_seconds: float) -> Outcome:
        """What became of an item; a process that died over it, or took too long, does not live on."""
        try:
            request = pickle.dumps((slot, item))
        except Exception as error:  # pickling raises whatever it raises
            return Outcome(reason_of(error))
        try:
            self._channel.send_bytes(request)
            if self._channel.poll(timeout_seconds or None):
                outcome: Outcome = self._channel.recv()
                return outcome
        except (EOFError, OSError):
            self._is_over = True
            return Outcome(f"crashed: the worker died while decoding ({self._end()})")
        self._is_over = True
        self.kill()
        return Outcome(f"timeout: decoding took longer than {timeout_seconds:g} s")

    def kill(self) -> None:
        """End it at once; it has nothing to lose."""
        self._process.kill()

    def close(self) -> None:
        """Let go of what is left of it."""
        self.kill()
        self._end()
        self._channel.close()

    def _end(self) -> str:
        """How it ended, in words."""
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # stuck in the kernel, over a dead network drive
            return "it cannot be ended"
        if code >= 0:
            return f"exit status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _start_message(prepare: Preparation, window: int, timeout_seconds: float) -> bytes:
    try:
        return pickle.dumps((prepare, window, timeout_seconds))
    except Exception as error:  # pickling raises whatever it raises
        raise _cannot_start(f"{type(error).__name__}: {error}") from error


def _cannot_start(why: object) -> WorkerStartError:
    return WorkerStartError(
        f"The processes that decode cannot be started ({why}); use fewer --workers if the machine is short of "
        "something, and give readers that come from a module which can be imported."
    )


def _anonymous_memory(size: int) -> int:
    """Descriptor of shared memory that has no name: it is gone with the last process that holds it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tai-pixels")
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
