"""Where a picture's file ends: before what it says of itself, or merely without the mark that should be its last."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from tai_engine.picture_kinds import AVIF, HEAD_BYTES, HEIF, JPEG, JPEG2000, JPEG_XL, WEBP, kind_of

_JPEG_END = b"\xff\xd9"
_MARK = re.compile(rb"\xff+[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)  # but for those amid a scan's bits, which have no body
_END, _SCAN, _PROGRESSIVE_FRAMES = 0xD9, 0xDA, (0xC2, 0xCA)
# Bits that would change the pixels, if any of these were still to come.
_FILLERS = (b"\x55" * 64, b"\xaa" * 64, b"\x00" * 64)


def bytes_missing(data: bytes) -> int:
    """How many bytes a file lacks of those that it declares: WebP's length, and the boxes of those that have boxes."""
    kind = kind_of(data[:HEAD_BYTES])
    if kind is WEBP:
        return max(0, 8 + int(struct.unpack_from("<L", data, 4)[0]) - len(data))
    if kind not in (AVIF, HEIF, JPEG2000, JPEG_XL) or data[:4] == b"\xff\x4f\xff\x51" or data[:2] == b"\xff\x0a":
        return 0
    at = 0
    while at + 8 <= len(data):
        length = int(struct.unpack_from(">L", data, at)[0])
        if length == 1 and at + 16 <= len(data):
            length = int(struct.unpack_from(">Q", data, at + 8)[0])
        if length < 8:  # 0 goes on to the end
            return 0
        at += length
    return max(0, at - len(data))


def lacks_scans(data: bytes) -> bool:
    """Whether a progressive JPEG ends before its scans have sent all coefficients (0 to 63 of every component) to the
    last bit (ITU-T T.81, G.1.1.1); False for any other file."""
    at, to_come = 2, set[tuple[int, int]]()
    while found := _MARK.search(data, at):
        mark, begun = data[found.end() - 1], found.end()
        body = data[begun + 2 : begun + int.from_bytes(data[begun : begun + 2], "big")]
        if mark == _END:
            break
        if mark in _PROGRESSIVE_FRAMES and len(body) > 5:
            to_come = {(component, k) for component in body[6 : 6 + 3 * body[5] : 3] for k in range(64)}
        elif mark == _SCAN and body and len(body) >= 4 + 2 * body[0]:
            (first, last, bits), count = body[-3:], body[0]
            if not bits & 15:
                to_come -= {(body[1 + 2 * n], k) for n in range(count) for k in range(first, last + 1)}
        at = begun + 2 + len(body)
    return bool(to_come)


def with_end_marker(data: bytes, pixels_of: Callable[[bytes], object]) -> bytes | None:
    """A JPEG that lacks nothing but the mark at its end, with that mark; None for one whose pixels are cut off.

    That no pixel is missing shows by more bits, which then change none. Of a progressive one this tells the scans that
    there are, and these have to send every coefficient to its last bit: a file may end between two scans.

    Args:
        data: a file that the decoder takes for cut off.
        pixels_of: decodes one, and gives what two of them can be compared by; whatever it raises passes.
    """
    if kind_of(data[:HEAD_BYTES]) is not JPEG or lacks_scans(data):
        return None
    ended = data + _JPEG_END
    pixels = pixels_of(ended)
    return ended if all(pixels_of(data + filler + _JPEG_END) == pixels for filler in _FILLERS) else None
