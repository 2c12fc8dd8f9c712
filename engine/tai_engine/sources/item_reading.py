"""The bytes of an item, or one exception that says why not. Processes that decode import this; it is light."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tai_engine.errors import ItemError
from tai_engine.sources.ids import is_address

if TYPE_CHECKING:
    from tai_engine.sources.items import SourceItem

MAX_ITEM_BYTES = 2**30
"""Larger files are not read as pictures: reading holds the whole file in memory."""

PAUSES = (0.5, 2.0, 5.0)
"""Seconds to wait before each further try of a request that failed."""

_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ELOOP: "missing",
    errno.EISDIR: "not-a-file",
    errno.EACCES: "no-permission",
    errno.EPERM: "no-permission",
}


class ReadError(ItemError):
    """Bytes that cannot be had."""


@dataclass(frozen=True)
class ItemReader:
    """Gets the bytes of an item, wherever they are.

    Memory: the file.

    Attributes:
        pauses: seconds to wait before each further try, when a network or a server fails.
        max_bytes: larger files are refused.
    """

    pauses: tuple[float, ...] = PAUSES
    max_bytes: int = MAX_ITEM_BYTES

    def __call__(self, item: SourceItem) -> bytes:
        """The bytes of ``item``, never empty.

        Raises:
            ReadError: whatever is in the way.
        """
        if item.failure is not None:
            reason, _, detail = item.failure.partition(": ")
            raise ReadError(reason, detail)
        if item.data is not None:
            data = item.data
        elif is_address(item.location):
            from tai_engine.sources.remote import fetch

            data = fetch(item.location, item.size, self.max_bytes, self.pauses)
        else:
            data = _read_file(item, self.max_bytes)
        if not data:
            raise ReadError("empty", "the file has no bytes")
        return data


def error_of_system(error: OSError) -> ReadError:
    """What the operating system said, as a reason."""
    return ReadError(_REASONS.get(error.errno or 0, "unreadable"), error.strerror or str(error))


def check_size(size: int, max_bytes: int) -> None:
    """Refuse what is too large to be held in memory.

    Raises:
        ReadError: if ``size`` is more than ``max_bytes``.
    """
    if size > max_bytes:
        raise ReadError("too-large", f"{size:,} bytes, {max_bytes:,} are allowed")


def _read_file(item: SourceItem, max_bytes: int) -> bytes:
    try:
        # Without O_NONBLOCK a pipe without a writer would stop the run for good.
        descriptor = os.open(item.location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise error_of_system(error) from error
    except ValueError as error:  # a zero byte, or text that no file system encodes
        raise ReadError("missing", f"no file can have this name ({error})") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise ReadError("not-a-file", f"it is {what}")
        offset = item.offset or 0
        size = found.st_size if item.offset is None else item.size or 0
        check_size(size, max_bytes)
        data = _read_range(descriptor, offset, size)
    except OSError as error:
        raise error_of_system(error) from error
    finally:
        os.close(descriptor)
    if len(data) < size:
        raise ReadError("truncated", f"{len(data):,} of {size:,} bytes are there")
    return data


def _read_range(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size:  # the system may give less than asked for
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
