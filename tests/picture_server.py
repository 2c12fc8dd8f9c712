"""A web server of a folder that can be told to fail, and archives with anything in them."""

from __future__ import annotations

import functools
import http.server
import io
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class PictureServer:
    """Serves a folder on 127.0.0.1 until the context ends.

    Attributes:
        url: of the folder, without a slash behind it.
        failures: what the next requests for a path shall meet instead of an answer: a status, ``"cut"`` for a body that
            ends too early, an address that they are led to, or None for an answer.
        requests: how often each path was asked for, by method and path.
        answers_ranges: whether parts of files can be had.
    """

    def __init__(self, folder: Path, answers_ranges: bool) -> None:
        self.failures: dict[str, list[int | str | None]] = {}
        self.requests: Counter[str] = Counter()
        self.answers_ranges = answers_ranges
        handler = functools.partial(_Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.plan = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> PictureServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD)

    def do_GET(self) -> None:
        self._answer(super().do_GET)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, answer: Any) -> None:
        plan: PictureServer = self.server.plan  # type: ignore[attr-defined]
        plan.requests[f"{self.command} {self.path}"] += 1
        planned = plan.failures.get(self.path, []) if self.command == "GET" else []
        failure = planned.pop(0) if planned else None
        path = Path(self.translate_path(self.path))
        if isinstance(failure, int):
            self.send_error(failure)
        elif isinstance(failure, str) and failure != "cut":
            self.send_response(302)
            self.send_header("Location", failure)
            self.end_headers()
        elif path.is_file() and (failure == "cut" or (plan.answers_ranges and "Range" in self.headers)):
            self._send_part(path.read_bytes(), failure == "cut")
        else:
            answer()

    def _send_part(self, data: bytes, is_cut: bool) -> None:
        first, last, status = 0, len(data) - 1, 200
        if "Range" in self.headers and self.server.plan.answers_ranges:  # type: ignore[attr-defined]
            begin, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
            first, last, status = int(begin), min(int(end or last), last), 206
        part = data[first : last + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if is_cut else part)


@contextmanager
def serving(folder: Path, answers_ranges: bool = True) -> Iterator[PictureServer]:
    """A server of ``folder`` for the time of the context."""
    with PictureServer(folder, answers_ranges) as server:
        yield server


def tar_bytes(members: Mapping[str, bytes] | list[tarfile.TarInfo | tuple[str, bytes]], mode: str = "w") -> bytes:
    """An archive of files (name and contents) and of members that are made by hand, all of the time 1,000,000,000.25.

    Args:
        members: in order.
        mode: of `tarfile.open`, such as ``"w:gz"``.
    """
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for member in members.items() if isinstance(members, Mapping) else members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_000_000_000.25
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()
