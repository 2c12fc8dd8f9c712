"""The tags of a TIFF's first directory, as far as they tell what kind of TIFF it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SAMPLES, SUB_DIRECTORIES, SAMPLE_FORMAT, DNG_VERSION, SUBFILE = 277, 330, 339, 50706, 254

_FORMATS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MAX_VALUES = 4096


@dataclass(frozen=True)
class Directory:
    """The first directory of a TIFF.

    Attributes:
        order: of bytes, ``"<"`` or ``">"``.
        begin: where its first entry lies in the file.
        count_format: of `struct`, for the number of entries that stands before them.
        entries: as they stand in the file.
        values: whole numbers by tag; tags of other types have none.
    """

    order: str
    begin: int
    count_format: str
    entries: tuple[bytes, ...]
    values: dict[int, tuple[int, ...]]

    def tag_of(self, entry: bytes) -> int:
        """The number of an entry's tag."""
        return int(struct.unpack_from(self.order + "H", entry)[0])

    def first(self, tag: int, default: int = 0) -> int:
        """The first value of a tag, or ``default``."""
        return next(iter(self.values.get(tag, ())), default)


def read_directory(data: bytes) -> Directory | None:
    """The first directory of a TIFF or BigTIFF; None where it is damaged or cut off."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        is_big = struct.unpack_from(order + "H", data, 2)[0] == 43
        offset = struct.unpack_from(order + ("Q" if is_big else "L"), data, 8 if is_big else 4)[0]
        count_format, entry_bytes = (order + "Q", 20) if is_big else (order + "H", 12)
        count = struct.unpack_from(count_format, data, offset)[0]
        begin = offset + struct.calcsize(count_format)
        entries = tuple(data[at : at + entry_bytes] for at in range(begin, begin + count * entry_bytes, entry_bytes))
        if not entries or len(entries[-1]) < entry_bytes:
            return None
        values = {}
        for entry in entries:
            tag, numbers = _numbers(data, entry, order, is_big)
            if numbers:
                values[tag] = numbers
    except (struct.error, MemoryError, OverflowError):
        return None
    return Directory(order, begin, count_format, entries, values)


def _numbers(data: bytes, entry: bytes, order: str, is_big: bool) -> tuple[int, tuple[int, ...]]:
    """Tag and whole numbers of an entry; none if it holds others, or too many."""
    tag, kind, count = struct.unpack_from(order + ("HHQ" if is_big else "HHL"), entry)
    if kind not in _FORMATS or not 0 < count <= _MAX_VALUES:
        return tag, ()
    room, place = (8, 12) if is_big else (4, 8)
    if count * _TYPE_BYTES[kind] <= room:
        return tag, struct.unpack_from(f"{order}{count}{_FORMATS[kind]}", entry, place)
    offset = struct.unpack_from(order + ("Q" if is_big else "L"), entry, place)[0]
    if offset + count * _TYPE_BYTES[kind] > len(data):
        return tag, ()
    return tag, struct.unpack_from(f"{order}{count}{_FORMATS[kind]}", data, offset)
