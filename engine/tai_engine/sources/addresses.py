"""Addresses such as ``s3://bucket/photos`` as text: their parts, and how they are joined."""

from __future__ import annotations

import os
import posixpath
import re
import urllib.parse


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


def _path_of(address: str) -> str:
    links = address.split("::")
    return next(link for link in links if "://" in link).partition("://")[2]
