"""A picture's file without what is not pixels.

Text, colour profiles and other metadata may be damaged, or larger than a decoder takes, in a file whose pixels are
whole. No library writes such a file anew without reading its metadata first, so the parts are copied here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from tai_engine.decoding.avif_boxes import without_avif_metadata
from tai_engine.decoding.tiff_tags import read_directory
from tai_engine.picture_kinds import AVIF, HEAD_BYTES, HEIF, JPEG, PNG, TIFF, WEBP, kind_of

_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")
_PNG_TRANSPARENCY = {0: (2,), 2: (6,), 3: range(1, 257)}
"""How long transparency is, by the type of colour; others have none apart."""
_JPEG_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a length
_JPEG_SCAN, _JPEG_END, _JPEG_JFIF, _JPEG_EXIF, _JPEG_ADOBE, _JPEG_COMMENT = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE, 0xFE
_WEBP_METADATA = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # and their flags
_TIFF_PIXELS = {
    254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338,
    339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,
}  # fmt: skip
_TIFF_ORIENTATION = 274


def without_metadata(data: bytes) -> Iterator[bytes]:
    """The file without its metadata: first with the orientation, which turns the picture, then without that too.

    Nothing comes of a file that is cut off amid its pixels, of other kinds of pictures, or where there is nothing to
    leave out. Memory: a copy of the file.
    """
    kind = kind_of(data[:HEAD_BYTES])
    copy = {PNG: _png, JPEG: _jpeg, WEBP: _webp, TIFF: _tiff, AVIF: _avif, HEIF: _avif}.get(kind) if kind else None
    if copy is None:
        return
    before = data
    for keeps_orientation in (True, False):
        found = copy(data, keeps_orientation)
        if found is not None and found != before:
            yield found
            before = found


def _png(data: bytes, keeps_orientation: bool) -> bytes | None:
    parts, at = [data[:8]], 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">L4s", data, at)
        chunk = data[at : at + 12 + length]
        at += 12 + length
        is_whole = len(chunk) == 12 + length
        if name in _PNG_PIXELS:
            if not is_whole:
                break  # where pixels are missing, the decoder says so
            if name == b"tRNS" and length not in _PNG_TRANSPARENCY.get(data[25], ()):
                continue
            parts.append(chunk)
        elif name == b"eXIf" and keeps_orientation and is_whole:
            if zlib.crc32(chunk[4:-4]) == struct.unpack(">L", chunk[-4:])[0]:
                parts.append(chunk)
        elif not name.isalpha():  # no chunk begins here
            break
        if name == b"IEND":
            break
    if parts[-1][4:8] != b"IEND":
        parts.append(struct.pack(">L4sL", 0, b"IEND", zlib.crc32(b"IEND")))
    return b"".join(parts)


def _jpeg(data: bytes, keeps_orientation: bool) -> bytes | None:
    parts, at = [data[:2]], 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at += 1  # decoders look for the next marker too
            continue
        marker = data[at + 1]
        if marker in (_JPEG_SCAN, _JPEG_END):
            parts.append(data[at:])
            return b"".join(parts)
        if marker == 0xFF or marker in _JPEG_ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = 2 + struct.unpack_from(">H", data, at + 2)[0]
        segment = data[at : at + length]
        body = segment[4:]
        is_metadata = 0xE0 <= marker <= 0xEF or marker == _JPEG_COMMENT
        is_kept = (
            (marker == _JPEG_JFIF and body.startswith(b"JFIF\0") and len(body) >= 14)
            or (marker == _JPEG_ADOBE and body.startswith(b"Adobe") and len(body) >= 12)
            or (marker == _JPEG_EXIF and body.startswith(b"Exif\0\0") and keeps_orientation)
        )
        if not is_metadata or is_kept:
            parts.append(segment)
        at += length
    return None


def _webp(data: bytes, keeps_orientation: bool) -> bytes | None:
    parts, at = [], 12
    left_out = set(_WEBP_METADATA) - ({b"EXIF"} if keeps_orientation else set())
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sL", data, at)
        chunk = data[at : at + 8 + length + length % 2]
        at += 8 + length + length % 2
        if name in left_out:
            continue
        if len(chunk) < 8 + length:
            if name in _WEBP_METADATA:
                continue
            return None
        if name == b"VP8X" and length >= 1:
            flags = chunk[8] & ~sum(_WEBP_METADATA[one] for one in left_out)
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        parts.append(chunk)
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<L", len(body)) + body


def _avif(data: bytes, _keeps_orientation: bool) -> bytes | None:
    return without_avif_metadata(data)  # it is turned by boxes of its own, not by Exif


def _tiff(data: bytes, keeps_orientation: bool) -> bytes | None:
    directory = read_directory(data)
    if directory is None:
        return None
    wanted = _TIFF_PIXELS if keeps_orientation else _TIFF_PIXELS - {_TIFF_ORIENTATION}
    kept = [entry for entry in directory.entries if directory.tag_of(entry) in wanted]
    if len(kept) == len(directory.entries):
        return data
    # The entries move up, which leaves room behind them to say that there is no other directory.
    table = struct.pack(directory.count_format, len(kept)) + b"".join(kept) + bytes(8)
    start = directory.begin - struct.calcsize(directory.count_format)
    return data[:start] + table + data[start + len(table) :]
