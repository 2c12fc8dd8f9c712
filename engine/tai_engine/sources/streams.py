"""A file behind an address as a stream that outlives failures of the network."""

from __future__ import annotations

import io
from typing import Any

from tai_engine.addresses import is_http, open_file_system
from tai_engine.errors import ItemError
from tai_engine.sources.remote import BLOCK_BYTES, PAUSES, as_stream, with_retries


class AddressStream(io.RawIOBase):
    """A file behind an address, read once from front to back; when the network fails, it goes on from where it was.

    Memory: a block of 4 MiB.

    Args:
        address: of the file.
        pauses: seconds before each further try.

    Raises:
        ItemError: from `read`, after all tries.
    """

    def __init__(self, address: str, pauses: tuple[float, ...] = PAUSES) -> None:
        super().__init__()
        self._address = address
        self._pauses = pauses
        self._position = 0
        self._is_at_end = False
        self._file: Any = None
        # Requests for blocks outlive a server's patience, but not every server answers them.
        self._in_blocks = True

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` or less of it; 0 at the end."""
        data = b"" if self._is_at_end else with_retries(lambda: self._read(len(buffer)), self._pauses)
        self._is_at_end = not data
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            return self._read_once(size)
        except ValueError:
            if not (self._in_blocks and is_http(self._address)):
                raise
            self._in_blocks = False  # the server sends whole files alone
            return self._read_once(size)

    def _read_once(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._open()
            return bytes(self._file.read(size))
        except Exception:
            self._drop()
            raise

    def _open(self) -> None:
        file_system, path = open_file_system(self._address)
        options = {"block_size": BLOCK_BYTES} if self._in_blocks else as_stream(self._address)
        self._file = file_system.open(path, "rb", **options)
        if self._in_blocks:
            self._file.seek(self._position)
            return
        left = self._position
        while left:
            skipped = len(self._file.read(min(left, BLOCK_BYTES)))
            if not skipped:
                raise ItemError("truncated", "the file has become shorter while it was read")
            left -= skipped

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
