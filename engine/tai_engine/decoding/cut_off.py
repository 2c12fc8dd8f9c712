"""Where a picture's file ends: before what it says of itself, or merely without the mark that should be its last."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tai_engine.picture_kinds import AVIF, HEAD_BYTES, HEIF, JPEG, JPEG2000, JPEG_XL, WEBP, kind_of

_JPEG_END = b"\xff\xd9"
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


def with_end_marker(data: bytes, pixels_of: Callable[[bytes], object]) -> bytes | None:
    """A JPEG that lacks nothing but the mark at its end, with that mark; None for one whose pixels are cut off.

    That no pixel is missing shows by more bits, which then change none. Of a progressive one this tells the scans that
    there are.

    Args:
        data: a file that the decoder takes for cut off.
        pixels_of: decodes one, and gives what two of them can be compared by; whatever it raises passes.
    """
    if kind_of(data[:HEAD_BYTES]) is not JPEG:
        return None
    ended = data + _JPEG_END
    pixels = pixels_of(ended)
    return ended if all(pixels_of(data + filler + _JPEG_END) == pixels for filler in _FILLERS) else None
