"""One process that decodes: how it is started, asked, and ended.

Bare processes, not those of `multiprocessing`, which would run the user's main module again and load all that it
imports; and not those of `concurrent.futures`, which take one that died for the end of all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.reduction import send_handle

from tai_engine.decoding.feed import Parcel
from tai_engine.decoding.worker import READY, Outcome, reason_of, with_words
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
_MAX_SAID_BYTES = 2000


class WorkerStartError(UserError):
    """Decoding processes cannot be started at all."""


class WorkerProcess:
    """A process of `tai_engine.decoding.worker`, and the channel to it.

    What libraries in C write to its stderr goes to a file without a name, and from there into the reason of the picture
    that they complain of.

    Raises:
        WorkerStartError: if there are too many processes, or there is too little memory.
    """

    def __init__(self) -> None:
        self._is_over = False
        try:
            self._said = anonymous_file()
            fcntl.fcntl(self._said, fcntl.F_SETFL, os.O_APPEND)
            self._channel, theirs = Pipe()
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from tai_engine.decoding.worker import main; "
                f"main({theirs.fileno()}, {os.getpid()})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **_ENVIRONMENT},
                process_group=0,  # Ctrl-C is for the parent, which knows what to do
            )
        except OSError as error:
            raise cannot_start(error.strerror) from error
        theirs.close()

    def begin(self, message: bytes, memory: int) -> None:
        """Tell it how to decode, and wait until it can.

        Args:
            message: pickled, see `tai_engine.decoding.worker.main`.
            memory: descriptor of the memory for pixels.

        Raises:
            WorkerStartError: with what the process says.
        """
        answer: object = "they do not answer"
        try:
            send_handle(self._channel, memory, self._process.pid)
            self._channel.send_bytes(message)
            if self._channel.poll(START_SECONDS):
                answer = self._channel.recv()
        except (EOFError, OSError):
            answer = with_words(self._end(), self._words()[-_MAX_SAID_BYTES:])
        if answer != READY:
            self._is_over = True
            raise cannot_start(answer)

    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self._is_over and self._process.poll() is None

    def decode(self, slot: int, parcel: Parcel, timeout_seconds: float) -> Outcome:
        """What became of an item; a process that died over it, or took too long, does not live on."""
        # The file that an item carries goes by itself: pickled, it would be there twice.
        try:
            request = pickle.dumps((slot, parcel.item, parcel.has_file))
        except Exception as error:  # pickling raises whatever it raises
            return Outcome(reason_of(error))
        try:
            os.ftruncate(self._said, 0)
            self._channel.send_bytes(request)
            self._channel.send_bytes(parcel.file)
            parcel.sent()
            if self._channel.poll(timeout_seconds or None):
                outcome: Outcome = self._channel.recv()
                reason = outcome.reason
                return outcome if reason is None else replace(outcome, reason=with_words(reason, self._words()))
        except (EOFError, OSError):
            self._is_over = True
            return Outcome(with_words(f"crashed: the worker died while decoding ({self._end()})", self._words()))
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
        os.close(self._said)

    def _words(self) -> str:
        """What libraries have said over the last picture."""
        return os.pread(self._said, _MAX_SAID_BYTES, 0).decode("utf-8", "backslashreplace")

    def _end(self) -> str:
        """How it ended, in words."""
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # stuck in the kernel, over a dead network drive
            return "it cannot be ended"
        return words_of_end(code)


def words_of_end(code: int | None) -> str:
    """How a process ended, by its exit status as `subprocess` and `multiprocessing` tell it."""
    if code is None or code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


class Spare:
    """A worker that is started before it is known what it is to do, while something else takes its time.

    One a process: of several, a few pictures would need one alone.
    """

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None

    def start(self) -> None:
        """Start one, unless there is one; that it cannot be started is said when it is needed."""
        if self._worker is None:
            with contextlib.suppress(WorkerStartError):
                self._worker = WorkerProcess()

    def take(self) -> WorkerProcess:
        """The one that was started, or a new one.

        Raises:
            WorkerStartError: if there is none and none can be started.
        """
        worker, self._worker = self._worker, None
        if worker is not None and worker.is_alive():
            return worker
        if worker is not None:
            worker.close()
        return WorkerProcess()


spare = Spare()
"""Of this process. It ends with it, for it waits for what it is told."""


def cannot_start(why: object) -> WorkerStartError:
    """The error for workers that cannot be started, with the reason in words."""
    return WorkerStartError(
        f"The processes that decode cannot be started ({why}); use fewer --workers if the machine is short of "
        "something, and give readers that come from a module which can be imported."
    )


def anonymous_file(size: int = 0) -> int:
    """Descriptor of a file in memory that has no name: it is gone with the last process that holds it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tai-pixels")
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
