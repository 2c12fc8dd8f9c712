"""The members of a tar archive, read once from front to back, and what is wrong with the archive.

tarfile reads the headers; it takes a damaged one for the end of the archive, and would lose all that follows without a
word. So what it has read is looked at here.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, cast

from tai_engine.errors import ItemError
from tai_engine.regular_files import error_of_system

_BLOCK_BYTES = 512
_OTHER_PACKERS = (
    (b"\xfd7zXZ\0", "it is packed by xz"),
    (b"BZh", "it is packed by bzip2"),
    (b"\x28\xb5\x2f\xfd", "it is packed by Zstandard"),
    (b"\x04\x22\x4d\x18", "it is packed by LZ4"),
    (b"LZIP", "it is packed by lzip"),
    (b"\x1f\x9d", "it is packed by compress"),
    (b"PK\3\4", "it is a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive"),
)
_MAX_HEADER_BYTES = 2**20
_MAX_MEMBER_BYTES = 2**60  # no file system holds more
_SKIP_BYTES = 2**20


class TarStream:
    """An archive, packed with gzip or not whatever its name says, as a stream that only goes forward.

    Memory: a header of at most 1 MiB, and a member's data when asked for it.

    Args:
        file: at the archive's first byte.
        is_local: an archive that is not packed is skipped through rather than read.

    Raises:
        ItemError: for an archive that is packed otherwise.
    """

    def __init__(self, file: io.BufferedReader[Any], is_local: bool) -> None:
        head = file.peek(8)
        is_packed = head.startswith(b"\x1f\x8b")
        other = next((name for magic, name in _OTHER_PACKERS if head.startswith(magic)), None)
        if other is not None:
            raise ItemError("unsupported", f"{other}, and only gzip is read: unpack it, or pack it with gzip")
        self._file: Any = gzip.GzipFile(fileobj=file, mode="rb") if is_packed else file
        self._position = 0
        self._last_read = b""
        self._again = b""  # what was looked at, and is still to be read
        self.can_seek = is_local and not is_packed

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Headers in order; between two of them `data` may be called.

        Raises:
            ItemError: where the archive is damaged or cut off.
        """
        try:
            archive: Any = tarfile.TarFile(fileobj=cast("Any", self), mode="r")
            while (member := archive.next()) is not None:
                archive.members.clear()  # it would keep them all
                if not 0 <= member.size <= _MAX_MEMBER_BYTES:
                    raise ItemError("broken", f"a header says that a member has {member.size:,} bytes")
                yield member
            self._check_end()
        except ItemError:
            raise
        except MemoryError as error:
            raise ItemError("no-memory", "reading the archive needs more memory than there is") from error
        except OSError as error:
            if error.errno == errno.EINVAL:  # of seeking, farther than this file system goes
                raise ItemError("broken", "a header leads far beyond the archive's end") from error
            raise error_of_system(error) from error
        except Exception as error:  # tarfile meets wrong numbers in headers with whatever comes of them
            text = str(error) or type(error).__name__
            if text == "empty file":
                raise ItemError("empty", "the archive has no bytes") from error
            is_cut = "unexpected end" in text or "truncated" in text
            raise ItemError("truncated" if is_cut else "broken", f"a header or member is damaged ({text})") from error

    def data(self, member: tarfile.TarInfo) -> bytes:
        """The bytes of the member whose header came last.

        Raises:
            ItemError: if the archive ends before.
        """
        self.seek(member.offset_data)
        data = self.read(member.size, member.size)
        if len(data) < member.size:
            raise ItemError("truncated", "the archive is cut off")
        self.seek(member.offset_data + -(-member.size // _BLOCK_BYTES) * _BLOCK_BYTES)
        return data

    def head(self, member: tarfile.TarInfo, size: int) -> bytes:
        """The first bytes of the member whose header came last; `data` may be called after it.

        Raises:
            ItemError: if the archive ends before.
        """
        self.seek(member.offset_data)
        size = min(size, member.size)
        data = self.read(size)
        if len(data) < size:
            raise ItemError("truncated", "the archive is cut off")
        if self.can_seek:
            self.seek(member.offset_data)
        else:
            self._again = data
            self._position -= size
        return data

    def tell(self) -> int:
        """Bytes from the beginning of the unpacked archive."""
        return self._position

    def seek(self, position: int) -> None:
        """Go forward, to the archive's end at most unless it can be skipped through."""
        if self.can_seek:
            self._position = self._file.seek(position)
            return
        while self._position < position:
            if not self.read(min(_SKIP_BYTES, position - self._position)):
                return

    def read(self, size: int, limit: int = _MAX_HEADER_BYTES) -> bytes:
        """``size`` bytes, fewer only at the end.

        Raises:
            ItemError: for more than ``limit``: no header is so long; for packing that is damaged or cut off.
        """
        if not 0 <= size <= limit:
            raise ItemError("broken", f"a header of {size:,} bytes")
        parts = [self._again[:size]] if self._again else []  # of one part no copy is made
        self._again = self._again[size:]
        left = size - sum(map(len, parts))
        with _damage_as_item_error():
            while left and (part := self._file.read(left)):
                parts.append(part)
                left -= len(part)
        self._last_read = b"".join(parts)
        self._position += size - left
        return self._last_read

    def _check_end(self) -> None:
        """What tarfile takes for the end may be damage: a header that is none, or zeros amid the archive.

        An archive without zeros at its end has all its members, as far as anybody can tell.
        """
        if not self._last_read:
            return
        if len(self._last_read) < _BLOCK_BYTES:
            raise ItemError("truncated", "the archive is cut off")
        if any(self._last_read):
            raise ItemError("broken", "a header is damaged")
        while rest := self.read(_SKIP_BYTES):
            if any(rest):
                raise ItemError("broken", "there is more behind its end: it is damaged, or several archives in one")


@contextlib.contextmanager
def _damage_as_item_error() -> Iterator[None]:
    """Whatever unpacking meets, in headers and in members alike."""
    try:
        yield
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ItemError("broken", f"its gzip packing is damaged ({error})") from error
    except EOFError as error:
        raise ItemError("truncated", "the archive is cut off") from error
