"""Reading behind addresses with whatever fsspec can open, tried again when a network fails.

fsspec is imported when the first address is met: those who read local files do not wait for it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tai_engine.errors import UserError, unknown_choice
from tai_engine.sources.addresses import is_http, protocol_of
from tai_engine.sources.item_reading import PAUSES, ReadError, check_size

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Result = TypeVar("Result")

# Packages by protocol; fsspec names others itself.
_PACKAGES = {
    "http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "adl": "adlfs", "hf": "huggingface_hub",
    "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
_MISSING_STATUS = (404, 410)
_FORBIDDEN_STATUS = (401, 403, 407)
_PASSING_STATUS = (408, 425, 429)
_UNKNOWN_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
BLOCK_BYTES = 4 * 2**20


def open_file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address and the path in it; fsspec keeps those that are open.

    Raises:
        UserError: for a protocol that nobody knows, one whose package is not installed, or a mistake in the address.
    """
    import fsspec

    protocol = protocol_of(address)
    options: dict[str, Any] = {}
    try:
        if "::" not in address:
            options["use_listings_cache"] = False  # it would hold every name that was ever listed
        if protocol in ("http", "https"):
            options["client_kwargs"] = {"timeout": _http_timeout()}
        file_system, path = fsspec.core.url_to_fs(address, **options)
        return file_system, str(path)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        if package is None:
            raise UserError(f"'{address}' cannot be read: {error}.") from error
        raise UserError(
            f"Reading '{address}' needs the package {package}, which is not installed: pip install {package}."
        ) from error
    except Exception as error:
        if protocol not in fsspec.available_protocols():
            raise unknown_choice("kind of address", protocol, fsspec.available_protocols()) from error
        raise UserError(f"'{address}' cannot be opened ({words_of(error)}): check the address.") from error


def _http_timeout() -> Any:
    """A server that falls silent is given up after a minute, however long the file is."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)


def fetch(address: str, size: int | None, max_bytes: int, pauses: tuple[float, ...] = PAUSES) -> bytes:
    """The bytes of a file.

    Memory: the file, at most ``max_bytes`` and what the network gives at once.

    Raises:
        ReadError: if they cannot be had after all tries, or are more than ``max_bytes``.
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
        raise ReadError("too-large", f"more than {max_bytes:,} bytes")

    return with_retries(try_once, pauses)


def with_retries(attempt: Callable[[], Result], pauses: tuple[float, ...] = PAUSES) -> Result:
    """What ``attempt`` returns, tried again after each of ``pauses`` while a network or a server fails.

    Raises:
        ReadError: the last failure, or the first one that time does not mend.
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


def read_error(error: Exception) -> tuple[ReadError, bool]:
    """An error of a file system, and whether trying again is of no use."""
    if isinstance(error, ReadError):
        return error, True
    cause = error.__cause__
    hides_cause = isinstance(error, FileNotFoundError) and isinstance(cause, Exception)
    if hides_cause and (type(cause).__module__.startswith("aiohttp") or isinstance(cause, TimeoutError)):
        return read_error(cast("Exception", cause))  # fsspec says "not found" of whatever does not answer
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in _MISSING_STATUS:
        return ReadError("missing", "there is nothing at this address"), True
    if isinstance(error, PermissionError) or status in _FORBIDDEN_STATUS or "Credentials" in type(error).__name__:
        return ReadError("no-permission", words_of(error)), True
    if isinstance(error, IsADirectoryError):
        return ReadError("not-a-file", "it is a folder"), True
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS
    system_error = getattr(error, "os_error", error)
    unknown_host = isinstance(system_error, socket.gaierror) and system_error.errno in _UNKNOWN_HOST
    is_final = refused or unknown_host or isinstance(error, UserError | MemoryError | NotImplementedError)
    return ReadError("no-memory" if isinstance(error, MemoryError) else "unreadable", words_of(error)), is_final


def words_of(error: Exception) -> str:
    """What an error says, without a full stop."""
    return (str(error) or type(error).__name__).rstrip(".")


def as_stream(address: str) -> dict[str, Any]:
    """Options that read a web page from front to back in one request, without asking for its size before."""
    return {"block_size": 0, "size": 1} if is_http(address) else {}
