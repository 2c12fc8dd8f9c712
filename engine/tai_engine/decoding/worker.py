"""The process that reads and decodes pictures: bytes, hash, and pixels into memory that it shares with its parent.

It loads no deep learning library. It ends when its parent does, and when one picture takes too long.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tai_engine.decoding.decode import DecodeOptions, decode_picture

logger = logging.getLogger(__name__)

HASH_BYTES = 16
READY = "ready"
GRACE_SECONDS = 5.0
"""A worker that nobody ends after the time that a picture may take ends itself so much later."""

_MAX_REASON = 500  # characters
_LOOK_SECONDS = 0.5


class ToPixels(Protocol):
    """Resize and crop; `tai_engine.decoding.pixels.SquarePixels` is one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, S, S), of what a call returns."""

    def __call__(
        self, image: Image.Image, of_size: tuple[int, int], box: tuple[float, float, float, float] | None, /
    ) -> np.ndarray:
        """uint8 of that shape; see `tai_engine.decoding.decode.Picture` for what is given."""


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes:
        reason: why it failed, ``"category: detail"``; None if its pixels are there.
        content_hash: BLAKE2b of 16 bytes of the file, None if it could not be read.
        read_seconds: of reading and hashing.
        decode_seconds: of decoding, resizing and cutting.
        remark: see `tai_engine.decoding.decode.Picture`.
    """

    reason: str | None
    content_hash: bytes | None = None
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    remark: str | None = None


@dataclass(frozen=True)
class Preparation:
    """How an item of a source becomes pixels; can be pickled.

    Attributes:
        reader: an item to its bytes; an exception with a ``reason`` (a category) is a failed item.
        to_pixels: a decoded picture to what the encoder takes.
        decoding: how pictures are decoded.
    """

    reader: Callable[[Any], bytes]
    to_pixels: ToPixels
    decoding: DecodeOptions

    def __call__(self, item: Any, out: np.ndarray) -> Outcome:
        """Read and decode one item into ``out``. It never raises: whatever is wrong is the item's reason to fail."""
        begun = time.perf_counter()
        read_at: float | None = None
        reason = content_hash = remark = None
        try:
            data = self.reader(item)
            content_hash = content_hash_of(data)
            read_at = time.perf_counter()
            picture = decode_picture(data, self.decoding, self.to_pixels.shape[1])
            out[:] = self.to_pixels(picture.image, picture.size, picture.box)
            remark = picture.remark
        except Exception as error:
            reason = reason_of(error)
            if reason.startswith("unexpected"):
                logger.debug("unexpected error for %r", item, exc_info=True)
        ended = time.perf_counter()
        read_at = ended if read_at is None else read_at
        return Outcome(reason, content_hash, read_at - begun, ended - read_at, remark)


def content_hash_of(data: bytes) -> bytes:
    """BLAKE2b of 16 bytes."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def reason_of(error: Exception) -> str:
    """Category, colon, detail; in valid Unicode, since messages may quote file names that are not."""
    category = getattr(error, "reason", None)
    if not isinstance(category, str):
        text = f"unexpected: {type(error).__name__}: {error}"
    else:
        text = str(error) if str(error).startswith(category) else f"{category}: {error}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[:_MAX_REASON]


def with_words(reason: str, words: str) -> str:
    """A reason with what libraries wrote beside it, their lines in one and each of them once."""
    if reason.startswith("unsupported"):
        return reason  # which says it all
    lines = dict.fromkeys(line for raw in words.splitlines() if (line := " ".join(raw.split())))
    said = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in "; ".join(lines))
    return f"{reason} ({said})"[:_MAX_REASON] if said else reason


def main(channel: int, parent: int) -> None:
    """Serve requests until the parent closes the channel or is gone.

    The parent sends a descriptor of the shared memory (slots of pixels one after another) and a pickled (`Preparation`,
    number of slots, seconds), and gets `READY`, or a text that says what is wrong with it. Then it sends for each item
    its slot, itself and whether it carries a file, pickled, then that file or nothing, and gets an `Outcome`.

    Args:
        channel: descriptor of a connection.
        parent: process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with Connection(channel) as connection:
        try:
            _serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _serve(connection: Connection) -> None:
    try:
        memory = recv_handle(connection)
        prepare, slot_count, timeout_seconds = pickle.loads(connection.recv_bytes())
        shape = (slot_count, *prepare.to_pixels.shape)
        slots = np.frombuffer(mmap.mmap(memory, int(np.prod(shape))), np.uint8).reshape(shape)
    except EOFError:
        raise
    except Exception as error:  # unpickling raises whatever importing raises
        connection.send(f"{type(error).__name__}: {error}")
        return
    connection.send(READY)
    while True:
        request, file = connection.recv_bytes(), connection.recv_bytes()
        if timeout_seconds:
            # The parent ends a worker that takes too long. Should it be gone, the kernel does it: the default action
            # for this signal needs nothing of a process that hangs.
            signal.setitimer(signal.ITIMER_REAL, timeout_seconds + GRACE_SECONDS)
        try:
            slot, item, has_file = pickle.loads(request)
        except Exception as error:
            outcome = Outcome(reason_of(error))
        else:
            item = replace(item, data=file) if has_file else item
            outcome = prepare(item, slots[slot])
        signal.setitimer(signal.ITIMER_REAL, 0)
        item, file = None, b""
        connection.send(outcome)


def _end_with(parent: int) -> None:
    """End this process at once when ``parent`` has died, even while a picture is being decoded."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)
