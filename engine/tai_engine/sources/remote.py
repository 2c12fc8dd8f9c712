"""Reading behind addresses with whatever fsspec can open, tried again when a network fails."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tai_engine.addresses import MISSING_STATUS, cause_of, is_http, open_file_system, words_of
from tai_engine.errors import ItemError, UserError
from tai_engine.regular_files import check_size

PAUSES = (0.5, 2.0, 5.0)
"""Seconds to wait before each further try of a request that failed."""

Result = TypeVar("Result")

_FORBIDDEN_STATUS = (401, 403, 407)
_PASSING_STATUS = (408, 425, 429)
_UNKNOWN_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
BLOCK_BYTES = 4 * 2**20


def fetch(address: str, size: int | None, max_bytes: int, pauses: tuple[float, ...] = PAUSES) -> bytes:
    """The bytes of a file.

    Memory: the file, at most ``max_bytes`` and what the network gives at once.

    Raises:
        ItemError: if they cannot be had after all tries, or are more than ``max_bytes``.
    """

    def try_once() -> bytes:
        file_system, path = open_file_system(address)
        if size is not None:
            check_size(size, max_bytes)
            return bytes(file_system.cat_file(path))
        with file_system.open(path, "rb", **as_stream(address)) as file:
            data = bytearray()
            while len(data) <= max_bytes:
                more = file.read(min(BLOCK_BYTES, max_bytes + 1 - len(data)))
                if not more:
                    return bytes(data)
                data += more
        raise ItemError("too-large", f"more than {max_bytes:,} bytes")

    return with_retries(try_once, pauses)


def with_retries(attempt: Callable[[], Result], pauses: tuple[float, ...] = PAUSES) -> Result:
    """What ``attempt`` returns, tried again after each of ``pauses`` while a network or a server fails.

    Raises:
        ItemError: the last failure, or the first one that time does not mend.
    """
    for pause in (*pauses, None):
        try:
            return attempt()
        except Exception as error:
            failure, is_final = read_error(error)
            if is_final or pause is None:
                raise failure from error
        time.sleep(pause)
    raise AssertionError("unreachable")


def read_error(error: Exception) -> tuple[ItemError, bool]:
    """An error of a file system, and whether trying again is of no use."""
    if isinstance(error, ItemError):
        return error, True
    error = cause_of(error)
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in MISSING_STATUS:
        return ItemError("missing", "there is nothing at this address"), True
    if isinstance(error, PermissionError) or status in _FORBIDDEN_STATUS or "Credentials" in type(error).__name__:
        return ItemError("no-permission", words_of(error)), True
    if isinstance(error, IsADirectoryError):
        return ItemError("not-a-file", "it is a folder"), True
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS
    system_error = getattr(error, "os_error", error)
    unknown_host = isinstance(system_error, socket.gaierror) and system_error.errno in _UNKNOWN_HOST
    is_final = refused or unknown_host or isinstance(error, UserError | MemoryError | NotImplementedError)
    return ItemError("no-memory" if isinstance(error, MemoryError) else "unreadable", words_of(error)), is_final


def as_stream(address: str) -> dict[str, Any]:
    """Options that read a web page from front to back in one request, without asking for its size before."""
    return {"block_size": 0, "size": 1} if is_http(address) else {}
