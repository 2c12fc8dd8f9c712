"""Small files that can be made again, on the disk: bounded, and a bad entry is as good as none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from tai_engine.unfinished import temporary_name

_DIGEST_BYTES = 16
_FILL = 0.9


class DiskCache:
    """Bytes by a key; what was not used for longest goes first when there is too much. Safe with threads and processes.

    An entry is written under a temporary name and renamed; it begins with the BLAKE2b of its bytes, and one that does
    not fit (a crash, another program) counts as missing. Where the disk refuses, nothing is kept, and that is all.

    Memory: while entries are dropped, 200 bytes for each.

    Args:
        folder: made when it is first needed, for its owner alone.
        max_bytes: of all entries; what several processes add at once may exceed it for a while.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes: int | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The bytes of ``key`` (text of any kind), None if they are not here."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)  # it was used
        except OSError:
            return None
        data = content[_DIGEST_BYTES:]
        return data if content[:_DIGEST_BYTES] == _digest(data) else None

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes of ``key``, if that can be done."""
        path = self._path(key)
        temporary = temporary_name(path.parent)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(exist_ok=True)
            with temporary.open("xb") as file:
                file.write(_digest(data) + data)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._entries())
            else:
                self._bytes += len(data) + _DIGEST_BYTES
            if self._bytes > self._max_bytes:
                self._bytes = self._drop_oldest()

    def _path(self, key: str) -> Path:
        name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
        return self._folder / name[:2] / name[2:]

    def _entries(self) -> list[tuple[int, int, str]]:
        """Time of last use, size and path of every entry."""
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118 - there may be a million
                with contextlib.suppress(OSError):
                    status = os.stat(path)  # noqa: PTH116
                    found.append((status.st_mtime_ns, status.st_size, path))
        return found

    def _drop_oldest(self) -> int:
        """Make room; the bytes that are left."""
        entries = sorted(self._entries())
        left = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if left <= _FILL * self._max_bytes:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
                left -= size
        return left


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
