"""Opening files to read: regular ones alone, without ever waiting for a writer; and what errno means."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

from tai_engine.errors import ItemError

_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ELOOP: "missing",
    errno.EISDIR: "not-a-file",
    errno.ENXIO: "not-a-file",  # a socket
    errno.EACCES: "no-permission",
    errno.EPERM: "no-permission",
}


def error_of_system(error: OSError) -> ItemError:
    """What the operating system said, as a reason."""
    return ItemError(_REASONS.get(error.errno or 0, "unreadable"), error.strerror or str(error))


def check_size(size: int, max_bytes: int) -> None:
    """Refuse what is too large to be held in memory.

    Raises:
        ItemError: if ``size`` is more than ``max_bytes``.
    """
    if size > max_bytes:
        raise ItemError("too-large", f"{size:,} bytes, {max_bytes:,} are allowed")


def open_regular(path: str | bytes | os.PathLike[str]) -> BufferedReader:
    """A regular file open for reading.

    Raises:
        ItemError: if it is not there, is a folder, a pipe or a device, or cannot be read.
    """
    try:
        # Without O_NONBLOCK a pipe without a writer would stop the run for good.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise error_of_system(error) from error
    except ValueError as error:  # a zero byte, or text that no file system encodes
        raise ItemError("missing", f"no file can have this name ({error})") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ItemError("not-a-file", "it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")


def read_range(file: BufferedReader, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on, fewer only where the file ends.

    Raises:
        ItemError: if they cannot be read.
    """
    try:
        file.seek(offset)
        return file.read(size)
    except OSError as error:
        raise error_of_system(error) from error


def printable(path: str | bytes | os.PathLike[str]) -> str:
    """A path for a message, undecodable bytes shown as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
