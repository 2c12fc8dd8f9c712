"""AVIF whose boxes are not as libavif wants them, though all pixels are there."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from tai_engine.decoding.avif_boxes import without_avif_metadata
from tai_engine.decoding.decode import METADATA_REMARK, DecodeOptions, decode_picture
from tai_engine.errors import ItemError

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def picture(mode: str = "RGBA") -> bytes:
    """A smooth picture, in its left half transparent, that is to be turned by a quarter."""
    y, x = np.mgrid[0:32, 0:48]
    pixels = np.stack([x * 4, y * 6, x + y, 255 * (x >= 24)], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a description", 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "AVIF", exif=exif.tobytes(), xmp=b"<x/>")
    return buffer.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(decode_picture(data, DecodeOptions(), None).image)


def find(data: bytes, name: bytes) -> tuple[int, int]:
    """Where a box begins and ends, its head included."""
    at = data.index(name) - 4
    return at, at + struct.unpack_from(">L", data, at)[0]


def with_boxes(data: bytes, at: int, end: int, more: bytes, parents: tuple[bytes, ...]) -> bytes:
    """The file with ``more`` in place of some bytes of ``meta``; lengths of ``parents`` and places of items follow."""
    shift = len(more) - (end - at)
    out = bytearray(data)
    for name in (b"meta", *parents):
        place = find(data, name)[0]
        struct.pack_into(">L", out, place, struct.unpack_from(">L", data, place)[0] + shift)
    iloc = find(data, b"iloc")[0]
    assert data[iloc + 8] == 0
    assert data[iloc + 12 : iloc + 14] == b"\x44\x00"  # four bytes for places and lengths, no base
    for item in range(struct.unpack_from(">H", data, iloc + 14)[0]):
        place = iloc + 16 + 14 * item + 6
        struct.pack_into(">L", out, place, struct.unpack_from(">L", data, place)[0] + shift)
    return bytes(out[:at]) + more + bytes(out[end:])


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", 8 + len(body)) + name + body


def associations(data: bytes) -> list[tuple[int, bytes]]:
    """Of each item where its entry lies, and the entry: number, count, and a byte for each property."""
    at, end = find(data, b"ipma")
    found, place = [], at + 16
    while place < end:
        entry = data[place : place + 3 + data[place + 2]]
        found.append((place, entry))
        place += len(entry)
    return found


def damaged_exif() -> bytes:
    data = picture()
    (at,) = (at for mark in (b"MM\0*", b"II*\0") if (at := data.find(mark)) >= 0)
    return data[:at] + b"XXXX" + data[at + 4 :]


def properties_apart() -> bytes:
    data = picture()
    at, end = find(data, b"ipma")
    boxes = [box(b"ipma", data[at + 8 : at + 12] + struct.pack(">L", 1) + entry) for _, entry in associations(data)]
    return with_boxes(data, at, end, b"".join(boxes), (b"iprp",))


def transparency_without_size() -> bytes:
    data = picture()
    kinds = [data[at + 4 : at + 8] for at in properties(data)]
    place, entry = associations(data)[1]
    numbers = [number & 0x7F for number in entry[3:]]
    size, depth = (next(n for n in numbers if kinds[n - 1] == kind) for kind in (b"ispe", b"pixi"))
    at = place + 3 + numbers.index(size)
    return data[:at] + bytes([depth]) + data[at + 1 :]


def properties(data: bytes) -> list[int]:
    at, end = find(data, b"ipco")
    at, found = at + 8, []
    while at < end:
        found.append(at)
        at += struct.unpack_from(">L", data, at)[0]
    return found


def unknown_group() -> bytes:
    data = picture()
    group = box(b"pymd", struct.pack(">LLLL", 0, 9, 1, 1) + bytes(22))
    end = find(data, b"meta")[1]
    return with_boxes(data, end, end, box(b"grpl", group), ())


def transparency_of_nothing() -> bytes:
    data = picture()
    at = data.index(b"auxl") + 8  # behind the item's number and the count
    assert struct.unpack_from(">HHH", data, at - 4)[1] == 1
    return data[:at] + b"\0\0" + data[at + 2 :]


KINDS = {
    "Exif that is none": damaged_exif,
    "properties in two boxes": properties_apart,
    "transparency without a size": transparency_without_size,
    "transparency of no picture": transparency_of_nothing,
    "a group of an unknown kind": unknown_group,
}


@pytest.mark.parametrize("name", KINDS)
def test_all_pixels_are_read(name):
    data = KINDS[name]()
    with pytest.raises((OSError, SyntaxError, RuntimeError, ValueError)), Image.open(io.BytesIO(data)) as image:
        image.load()
    found = decode_picture(data, DecodeOptions(), None)
    assert found.remark.startswith(METADATA_REMARK)
    assert found.size == (32, 48)  # turned
    np.testing.assert_array_equal(np.asarray(found.image), pixels_of(picture()))
    white = (np.asarray(found.image) == 255).all(2)
    assert white[:24].all()  # what was at the left is above now
    assert not white[24:].any()


def test_a_file_whose_pixels_are_damaged_fails():
    data = picture("RGB")
    for damaged in (data[: data.index(b"mdat") + 40], data.replace(b"av01", b"av99"), data.replace(b"ispe", b"ispX")):
        with pytest.raises(ItemError, match=r"broken|truncated|unsupported"):
            decode_picture(damaged, DecodeOptions(), None)


def test_whatever_stands_in_boxes_no_other_error_comes():
    data = properties_apart()
    random = np.random.default_rng(0)
    end = find(data, b"meta")[1]
    for _ in range(300):
        noisy = bytearray(data)
        for at in random.integers(0, end, 4):
            noisy[at] = random.integers(0, 256)
        found = without_avif_metadata(bytes(noisy))
        assert found is None or len(found) == len(data)
