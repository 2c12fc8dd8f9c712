"""Where a list that comes from elsewhere may lead: to its own place, and to what the user allows.

Whoever writes such a list could otherwise have files of this machine read, or ask hosts that only this machine reaches.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import NamedTuple

from tai_engine.errors import UserError

# They say how a file is reached, not where it lies.
_WRAPPERS = ("simplecache", "filecache", "blockcache", "zip", "tar")
_WITHOUT_HOST = ("file", "memory", "hf")  # what follows is a path
_SAME = {"local": "file", "http": "https", "s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "ssh": "sftp"}
_ODD = re.compile(r"[\\\s\0-\x1f\x7f]")
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


class _Place(NamedTuple):
    """A scheme, and the host or bucket; "" for all of that scheme, or where there is none."""

    scheme: str
    host: str


class Allowed:
    """The places that the rows of a list may name.

    Args:
        home: address of the list.
        allow: more places: ``"file"`` or ``"https"`` for all of a scheme, ``"https://images.example.org"`` for a host
            or bucket, in which ``*`` stands for any letters.

    Raises:
        UserError: for a place that is none.
    """

    def __init__(self, home: str, allow: Iterable[str] = ()) -> None:
        self._places = [_place_of(home), *map(_named, allow)]

    def refusal(self, address: str) -> str | None:
        """Why an address may not be read, with what would allow it; None if it may."""
        *wrappers, target = address.split("::")
        wrong = next((w for w in wrappers if w.partition("://")[0].lower() not in _WRAPPERS), None)
        if wrong is not None or "://" not in target:
            return f"'{address}' is a chain of addresses whose parts cannot all be looked at"
        place = _place_of(target)
        if any(p.scheme == place.scheme and fnmatch.fnmatchcase(place.host, p.host or "*") for p in self._places):
            return None
        advice = f"{place.scheme}://{place.host}" if place.host else place.scheme
        return f"'{address}' lies elsewhere than the list itself; add --allow {advice} if the list is to be trusted"


def _place_of(address: str) -> _Place:
    """Scheme and host of the last link of an address."""
    protocol, _, rest = address.rpartition("::")[2].partition("://")
    scheme = _SAME.get(protocol.lower(), protocol.lower())
    return _Place(scheme, "" if scheme in _WITHOUT_HOST else _host(rest))


def _host(rest: str) -> str:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # Programs do not agree on what these mean; no place is called so.
    return "?" if _ODD.search(authority) else authority.rpartition("@")[2].lower()


def _named(text: str) -> _Place:
    protocol, _, rest = text.partition("://")
    if _PROTOCOL.fullmatch(protocol) is None or "::" in text:
        raise UserError(
            f"--allow {text!r} names no place: give a scheme such as 'file', or one with a host, such as "
            "'https://images.example.org'."
        )
    scheme = _SAME.get(protocol.lower(), protocol.lower())
    return _Place(scheme, "" if scheme in _WITHOUT_HOST else _host(rest))
