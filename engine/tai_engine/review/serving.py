"""A review served to this machine alone, until it is interrupted."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from tai_engine.errors import UserError

LOOPBACK = "127.0.0.1"
_PATIENCE_SECONDS = 3


def listen(port: int) -> socket.socket:
    """A socket that listens on this machine's own address; port 0 takes a free one.

    Raises:
        UserError: if the port is in use or may not be taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A port that a review which was just ended had used is free at once.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        number = error.errno if isinstance(error, OSError) else None
        reason = "it is in use" if number == errno.EADDRINUSE else f"{error}"
        raise UserError(
            f"The port {port} of this machine cannot be taken ({reason}): end what listens there, or choose another "
            "one with --port (0 takes any free one)."
        ) from error
    return listener


def serve(app: ASGIApp, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve ``app`` on ``listener`` until this process is interrupted; what was begun is ended first."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready()

    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE_SECONDS,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listener])
