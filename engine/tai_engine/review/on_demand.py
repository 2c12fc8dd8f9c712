"""Pictures decoded when somebody asks, the last asked for first, in processes that may crash."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tai_engine.decoding.decode import DecodeOptions
from tai_engine.decoding.feed import Job
from tai_engine.decoding.pool import DecodePool
from tai_engine.decoding.worker import Preparation
from tai_engine.review.collection import NotShownError
from tai_engine.review.small_jpeg import SmallJpeg, file_in
from tai_engine.sources.items import SourceItem

TIMEOUT_SECONDS = 30.0


def preparation(read_bytes: Callable[[Any], bytes], side: int) -> Preparation:
    """What decoding processes do: read, decode at a scale that suffices, and make a small JPEG."""
    return Preparation(read_bytes, SmallJpeg(side), DecodeOptions(draft=1.0))


@dataclass(frozen=True)
class _Request(Job):
    """A job, and where its JPEG is waited for."""

    answer: Future[bytes]


class _Stack:
    """A `Feed` of requests, the last one first: who scrolls on no longer waits for what he has passed."""

    def __init__(self) -> None:
        self._requests: list[_Request] = []
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, request: _Request) -> None:
        with self._changed:
            if self._is_closed:
                request.answer.cancel()
                return
            self._requests.append(request)
            self._changed.notify()

    def take(self) -> Job | None:
        with self._changed:
            while self._requests:
                request = self._requests.pop()
                if request.answer.set_running_or_notify_cancel():
                    return request
            if self._is_closed:
                raise StopIteration
            return None

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._is_closed)

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            for request in self._requests:
                request.answer.cancel()
            self._requests.clear()
            self._changed.notify()


class OnDemandDecoder:
    """Small JPEGs of pictures, when they are asked for.

    Memory: 3 S² bytes for each of twice as many pictures as there are workers, and what `DecodePool` says of these.

    Args:
        read_bytes: an item to the bytes of its file; can be pickled.
        side: S, the square that the JPEGs fit.
        workers: how many processes.
    """

    def __init__(self, read_bytes: Callable[[SourceItem], bytes], side: int, workers: int) -> None:
        self._stack = _Stack()
        self._pool = DecodePool(
            preparation(read_bytes, side),
            workers=workers,
            window=2 * workers,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="on-demand", daemon=True)
        self._thread.start()

    def request(self, item: SourceItem) -> Future[bytes]:
        """The JPEG of ``item``, when it is made; `NotShownError` if it cannot be made. It may be cancelled."""
        answer: Future[bytes] = Future()
        if self._error is not None:
            answer.set_exception(self._error)
        else:
            self._stack.put(_Request(0, item, ends_group=False, answer=answer))
        return answer

    def close(self) -> None:
        """End the processes; what was asked for and is not made is cancelled."""
        self._stack.close()
        self._thread.join()

    def _work(self) -> None:
        last: _Request | None = None
        with closing(self._pool):
            try:
                for decoded in self._pool.decode(self._stack):
                    if decoded is None:
                        continue
                    last = decoded.job  # type: ignore[assignment]  # the stack gives requests
                    assert last is not None
                    if decoded.pixels is None:
                        last.answer.set_exception(NotShownError(decoded.outcome.reason))
                    else:
                        last.answer.set_result(file_in(decoded.pixels))
            except Exception as error:  # processes cannot be started: said to everybody who asks
                self._error = error
                self._stack.close()
