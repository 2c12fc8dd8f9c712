"""AVIF without what is not pixels, and with what its pixels lack to be decoded; no byte moves.

libavif refuses a whole picture for a damaged Exif or gain map, for groups of items that it does not know, and for
mistakes that encoders make: properties in several boxes of one kind, and transparency that does not say its size or of
which picture it is. All of this stands in the box ``meta`` (ISO/IEC 14496-12 and 23008-12), and is named otherwise or
joined there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_PASSED_OVER = b"free"
_NO_PIXELS = (b"Exif", b"mime", b"tmap")


class _Box(NamedTuple):
    name: bytes
    begin: int  # of what is in it
    end: int


def without_avif_metadata(data: bytes) -> bytes | None:
    """The file as libavif takes it; None where its boxes are damaged. Memory: a copy of the file."""
    try:
        return _tidied(data)
    except (struct.error, IndexError):
        return None


def _tidied(data: bytes) -> bytes | None:
    outer = {box.name: box for box in _boxes(data, 0, len(data))}
    meta = outer.get(b"meta")
    if meta is None or b"ftyp" not in outer:
        return None
    out = bytearray(data)
    for at in range(outer[b"ftyp"].begin, outer[b"ftyp"].end, 4):  # of brands, which promise what a file has
        if data[at : at + 4] == b"tmap":
            out[at : at + 4] = b"mif1"
    inner = {box.name: box for box in _boxes(data, meta.begin + 4, meta.end)}
    if (items := inner.get(b"iinf")) is not None:
        version = data[items.begin]
        for box in _boxes(data, items.begin + (8 if version else 6), items.end):
            at = box.begin + (10 if data[box.begin] == 3 else 8)
            if box.name == b"infe" and data[at : at + 4] in _NO_PIXELS:
                out[at : at + 4] = _PASSED_OVER
    if (groups := inner.get(b"grpl")) is not None:
        out[groups.begin - 4 : groups.begin] = _PASSED_OVER
    if (references := inner.get(b"iref")) is not None and (primary := inner.get(b"pitm")) is not None:
        width = 4 if data[references.begin] else 2
        number = data[primary.end - (4 if data[primary.begin] else 2) : primary.end]
        for _, master, at in _transparencies(data, references):
            if master == 0:  # which is no item, and stands for the only other one
                out[at : at + width] = int.from_bytes(number, "big").to_bytes(width, "big")
    if (properties := inner.get(b"iprp")) is not None:
        _mend_properties(data, out, properties, inner.get(b"iref"))
    return bytes(out)


def _mend_properties(data: bytes, out: bytearray, properties: _Box, references: _Box | None) -> None:
    """Give every box of associations a flag of its own, and a picture's transparency the size of the picture."""
    boxes = list(_boxes(data, properties.begin, properties.end))
    kinds = [box.name for one in boxes if one.name == b"ipco" for box in _boxes(data, one.begin, one.end)]
    sizes: dict[int, int] = {}  # of items, as the number of a property
    spare: dict[int, tuple[int, bool]] = {}  # where an item names its channels' depth, which libavif does not need
    for number, box in enumerate(one for one in boxes if one.name == b"ipma"):
        version, is_wide = data[box.begin], bool(data[box.begin + 3] & 1)
        if number:
            out[box.begin + 2] = number  # flags that mean nothing, but no two boxes may have the same
        at = box.begin + 8
        for _ in range(struct.unpack_from(">L", data, box.begin + 4)[0]):
            item = struct.unpack_from(">L" if version else ">H", data, at)[0]
            at += 5 if version else 3
            for _ in range(data[at - 1]):
                index = struct.unpack_from(">H", data, at)[0] & 0x7FFF if is_wide else data[at] & 0x7F
                kind = kinds[index - 1]
                if kind == b"ispe":
                    sizes[item] = index
                elif kind == b"pixi":
                    spare[item] = at, is_wide
                at += 2 if is_wide else 1
    for item, master, _ in _transparencies(data, references) if references is not None else ():
        if item not in sizes and master in sizes and item in spare:
            at, is_wide = spare[item]
            out[at : at + (2 if is_wide else 1)] = sizes[master].to_bytes(2 if is_wide else 1, "big")


def _transparencies(data: bytes, references: _Box) -> Iterator[tuple[int, int, int]]:
    """Items that are auxiliary to another one, that one, and where its number stands."""
    form, width = (">L", 4) if data[references.begin] else (">H", 2)
    for box in _boxes(data, references.begin + 4, references.end):
        if box.name == b"auxl":
            at = box.begin + width + 2
            yield struct.unpack_from(form, data, box.begin)[0], struct.unpack_from(form, data, at)[0], at


def _boxes(data: bytes, begin: int, end: int) -> Iterator[_Box]:
    """Boxes one after another, until one that is damaged."""
    at = begin
    while at + 8 <= end:
        length, name = struct.unpack_from(">L4s", data, at)
        header = 8
        if length == 1:
            header, length = 16, struct.unpack_from(">Q", data, at + 8)[0]
        if length == 0:
            length = end - at
        if length < header or at + length > end:
            return
        yield _Box(name, at + header, at + length)
        at += length
