"""Addresses such as ``s3://bucket/photos``: what is one, its parts, how they are joined, and the file system behind it.

fsspec is imported when the first address is opened: those who work with local files do not wait for it.
"""

from __future__ import annotations

import os
import posixpath
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, cast

from tai_engine.errors import ItemError, UserError, unknown_choice
from tai_engine.redirects import fenced_client

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Packages by protocol; fsspec names others itself.
_PACKAGES = {
    "http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "adl": "adlfs", "hf": "huggingface_hub",
    "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
MISSING_STATUS = (404, 410)
"""What a web server says of what is not there."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://")


def is_address(text: str) -> bool:
    """Whether it begins like an address (``s3://``, also chained: ``simplecache::s3://``) and is no path."""
    return _ADDRESS.match(text) is not None


def protocol_of(address: str) -> str:
    """``"s3"`` of ``"s3://bucket/a.jpg"``."""
    return re.split("::|://", address, maxsplit=1)[0].lower()


def is_http(address: str) -> bool:
    """Whether names in the address are percent-encoded."""
    return protocol_of(address) in ("http", "https")


def local_path(address: str) -> str | None:
    """The path that a ``file://`` address stands for, percent-encoded or not; None for other addresses."""
    protocol, _, path = address.partition("://")
    if protocol.lower() not in ("file", "local"):
        return None
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    is_there = os.path.exists(path)  # noqa: PTH110 - Path raises where a folder may not be read
    return path if is_there else urllib.parse.unquote(path, errors="surrogateescape")


def head_of(address: str) -> str:
    """The part that holds the path: of chained addresses (``zip://a.jpg::s3://...``) the first that has one."""
    first = address.partition("::")[0]
    return first if "://" in first else address


def name_of(address: str) -> str:
    """The last part of an address, as a file name."""
    if is_http(address):
        path = urllib.parse.urlsplit(address).path
        return urllib.parse.unquote(path.rpartition("/")[2], errors="surrogateescape")
    return head_of(address).rpartition("/")[2]


def parent_of(address: str) -> str:
    """The address of the folder that a file is in."""
    if is_http(address):
        return urllib.parse.urljoin(address, ".").rstrip("/")
    return with_path(address, _path_of(address).rpartition("/")[0])


def child_of(folder: str, relative: str) -> str:
    """The address of a file below a folder, as the listing of its file system names it.

    Args:
        folder: an address.
        relative: what the listing says below ``folder``: of web servers percent-encoded.
    """
    if is_http(folder):
        return f"{folder.rstrip('/')}/{relative}"
    path = _path_of(folder)
    return with_path(folder, f"{path.rstrip('/')}/{relative}" if path.strip("/") else relative)


def join(folder: str, relative: str) -> str:
    """The address of a file below a folder; ``..`` goes up, but not above the host or bucket.

    Args:
        folder: an address.
        relative: a file name with folders before it; not percent-encoded.
    """
    if is_http(folder):
        relative = urllib.parse.quote(relative, safe="/", errors="surrogateescape")
        return urllib.parse.urljoin(folder.rstrip("/") + "/", posixpath.normpath(relative).removeprefix("/"))
    path = _path_of(folder)
    bucket, _, rest = path.strip("/").partition("/")
    inner = posixpath.normpath(f"/{rest}/{relative}").lstrip("/")
    return with_path(folder, ("/" if path.startswith("/") else "") + (f"{bucket}/{inner}" if bucket else inner))


def with_path(address: str, path: str) -> str:
    """The address with another path in its head (see `head_of`)."""
    links = address.split("::")
    index = next(i for i, link in enumerate(links) if "://" in link)
    links[index] = f"{links[index].partition('://')[0]}://{path}"
    return "::".join(links)


def open_file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address and the path in it; fsspec keeps those that are open.

    Raises:
        UserError: for a protocol that nobody knows, one whose package is not installed, or a mistake in the address.
    """
    import fsspec

    protocol = protocol_of(address)
    try:
        file_system, path = fsspec.core.url_to_fs(address, **file_system_options(address))
        return file_system, str(path)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        if package is None:
            raise UserError(f"'{address}' cannot be opened: {error}.") from error
        raise UserError(
            f"Opening '{address}' needs the package {package}, which is not installed: pip install {package}."
        ) from error
    except Exception as error:
        if protocol not in fsspec.available_protocols():
            raise unknown_choice("kind of address", protocol, fsspec.available_protocols()) from error
        raise UserError(f"'{address}' cannot be opened ({words_of(error)}): check the address.") from error


def file_system_options(address: str) -> dict[str, Any]:
    """What fsspec is told when it opens the file system of an address.

    Listings are never cached: nobody tells this process what others write, and all names would be held for good.

    Raises:
        ImportError: without the package that the protocol needs.
    """
    uncached: dict[str, Any] = {"use_listings_cache": False}
    if "::" in address:
        # Of a chain, what lists is its last link; options for one link go by its protocol.
        return {protocol_of(address.rpartition("::")[2]): uncached}
    if is_http(address):
        import aiohttp

        # A server that falls silent is given up after a minute, however long the file is.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)
        return {**uncached, "client_kwargs": {"timeout": timeout}, "get_client": fenced_client}
    return uncached


def cause_of(error: Exception) -> Exception:
    """What went wrong: fsspec says "not found" of whatever does not answer, and names the cause beside it."""
    cause = error.__cause__
    hides_cause = isinstance(error, FileNotFoundError) and isinstance(cause, Exception)
    is_of_network = type(cause).__module__.startswith("aiohttp") or isinstance(cause, TimeoutError)
    is_missing = getattr(cause, "status", None) in MISSING_STATUS
    is_known = isinstance(cause, ItemError) or (is_of_network and not is_missing)
    return cast("Exception", cause) if hides_cause and is_known else error


def words_of(error: Exception) -> str:
    """What an error says, without a full stop."""
    return (str(error) or type(error).__name__).rstrip(".")


def _path_of(address: str) -> str:
    links = address.split("::")
    return next(link for link in links if "://" in link).partition("://")[2]
