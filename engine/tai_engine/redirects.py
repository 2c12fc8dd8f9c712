"""Where web servers may lead those who ask them: not into networks that only this machine reaches.

Whoever runs a server, or writes a list of addresses, could otherwise have a cloud's credentials asked for, or a service
of this machine. It takes aiohttp, which is imported when the first address is opened.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

from tai_engine.errors import ItemError


async def fenced_client(**options: Any) -> Any:
    """A session of aiohttp that follows a redirect only where `refusal` has nothing against it.

    Args:
        options: of the session, as fsspec has them.
    """
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check)
    return aiohttp.ClientSession(trace_configs=[trace], **options)


def refusal(origin: str, target: str) -> str | None:
    """Why a server at one IP address may not lead to another one; None if it may.

    Nobody leads to link-local addresses, where clouds keep credentials; to this machine itself only this machine; and
    into a private network only who is in one.
    """
    before, after = (ipaddress.ip_address(text.partition("%")[0]) for text in (origin, target))
    if after == before:
        return None
    if after.is_link_local:
        return "a link-local address"
    if after.is_loopback and not before.is_loopback:
        return "this machine itself"
    return "an address within a private network" if before.is_global and not after.is_global else None


async def _check(_session: Any, _context: Any, parameters: Any) -> None:
    """Look at a redirect before it is followed.

    Raises:
        ItemError: if it is not to be followed.
    """
    location = parameters.response.headers.get("Location") or parameters.response.headers.get("URI")
    if location is None:
        return
    target = parameters.url.join(type(parameters.url)(location))
    if target.host is None or target.host == parameters.url.host:
        return
    origins, targets = await _addresses(parameters.url.host), await _addresses(target.host)
    why = next((why for a in origins for b in targets if (why := refusal(a, b)) is not None), None)
    if why is not None:
        raise ItemError("no-permission", f"the server leads to '{target}', {why}: no other host may lead there")


async def _addresses(host: str) -> list[str]:
    """The IP addresses of a host; none where nobody knows it, who is asked next will say so."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
