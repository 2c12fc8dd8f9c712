"""A kind that cannot be read here is said as that, and damage as damage."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tai_engine.decoding.decode import decode_image
from tai_engine.decoding.tiff_tags import read_directory
from tai_engine.errors import ItemError


def failure(data: bytes) -> str:
    with pytest.raises(ItemError) as caught:
        decode_image(data)
    return str(caught.value)


def tiff(values: dict[int, tuple[int, ...]], pixels: bytes, order: str = "<", big: bool = False) -> bytes:
    """A TIFF of one strip, of these tags as 16-bit numbers and those that say where the strip is."""
    offset_format = "Q" if big else "L"
    head_bytes, entry_format = (16, "HHQ8s") if big else (8, "HHL4s")
    room = 8 if big else 4
    tags = {tag: struct.pack(f"{order}{len(numbers)}H", *numbers) for tag, numbers in values.items()}
    entries, extra = [], b""
    count = len(tags) + 2
    extra_at = head_bytes + len(pixels) + (8 if big else 2) + count * struct.calcsize(order + entry_format) + room
    for tag, packed in {**tags, 273: None, 279: None}.items():
        if packed is None:
            number = head_bytes if tag == 273 else len(pixels)
            kind, length, value = (16 if big else 4), 1, struct.pack(order + offset_format, number)
        else:
            kind, length, value = 3, len(packed) // 2, packed
            if len(packed) > room:
                value = struct.pack(order + offset_format, extra_at + len(extra))
                extra += packed
        entries.append((tag, struct.pack(order + entry_format, tag, kind, length, value.ljust(room, b"\0"))))
    table = b"".join(entry for _, entry in sorted(entries))
    start = head_bytes + len(pixels)
    head = (b"II" if order == "<" else b"MM") + (
        struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HL", 42, start)
    )
    return head + pixels + struct.pack(order + ("Q" if big else "H"), count) + table + bytes(room) + extra


def grey(bits: int, **more: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    return {256: (4,), 257: (2,), 258: (bits,), 259: (1,), 262: (1,), 277: (1,), 278: (2,)} | {
        int(tag[1:]): value for tag, value in more.items()
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_directories_are_read(order, big):
    directory = read_directory(tiff(grey(8, t258=(8, 8, 8), t277=(3,)), bytes(24), order, big))
    assert directory.values[258] == (8, 8, 8)
    assert [directory.first(tag) for tag in (256, 257, 277, 279, 999)] == [4, 2, 3, 24, 0]
    assert len(directory.entries) == 9
    assert read_directory(tiff(grey(8), bytes(8), order, big)[:-20]) is None
    assert read_directory(b"II*\0\xff\xff\xff\xff") is None
    assert read_directory(b"II*") is None
    assert read_directory(b"\x89PNG") is None


@pytest.mark.parametrize(
    ("values", "size", "words"),
    [
        (grey(64, t339=(3,)), 64, "a TIFF of 1 channel (grey) of float 64 bits"),
        (
            grey(32, t258=(32,) * 3, t277=(3,), t262=(2,), t339=(3,) * 3),
            96,
            "a TIFF of 3 channels (RGB) of float 32 bits",
        ),
        (grey(16, t258=(16,) * 13, t277=(13,)), 208, "a TIFF of 13 channels (grey) of 16 bits"),
        (grey(24), 24, "a TIFF of 1 channel (grey) of 24 bits"),
        (grey(8, t259=(33005,)), 8, "a TIFF with JPEG 2000 inside"),
        (grey(8, t259=(34887,)), 8, "a TIFF with LERC inside"),
    ],
)
def test_kinds_of_tiff(values, size, words):
    assert failure(tiff(values, bytes(size))) == f"unsupported: {words}"
    assert failure(tiff(values, bytes(size), ">")) == f"unsupported: {words}"


def test_tiffs_that_are_read_and_tiffs_that_are_damaged():
    assert np.asarray(decode_image(tiff(grey(8), bytes([9, 8, 7, 6, 5, 4, 3, 2]))))[..., 0].tolist() == [
        [9, 8, 7, 6],
        [5, 4, 3, 2],
    ]
    assert failure(tiff(grey(777), bytes(8))).startswith("broken: ")  # no sample has so many bits
    assert failure(tiff(grey(8, t256=(0,)), bytes(8))).startswith("broken: ")
    assert failure(tiff(grey(8, t277=(60000,)), bytes(8))).startswith("broken: ")
    assert failure(tiff(grey(8, t258=(8, 8), t277=(3,)), bytes(24))).startswith("broken: ")
    assert failure(tiff(grey(8, t259=(5,)), b"\xff" * 8)).startswith("broken: ")  # LZW of nonsense
    assert failure(tiff(grey(8), bytes(8))[:30]).startswith("broken: ")


def jpeg_of(marker: int, bits: int, channels: int) -> bytes:
    """A JPEG up to its header; what follows would be pixels."""
    frame = struct.pack(">BHHB", bits, 8, 8, channels) + b"".join(bytes([n, 0x11, 0]) for n in range(1, channels + 1))
    return b"\xff\xd8\xff\xdb\0\x43\0" + bytes([1] * 64) + struct.pack(">BBH", 0xFF, marker, len(frame) + 2) + frame


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (jpeg_of(0xC0, 12, 3), "a JPEG of 12 bits a sample"),
        (jpeg_of(0xC0, 8, 2), "a JPEG of 2 channels"),
        (jpeg_of(0xC3, 8, 3), "a JPEG of the kind lossless"),
        (jpeg_of(0xCB, 8, 1), "a JPEG of the kind lossless arithmetic coding"),
        (jpeg_of(0xC5, 8, 1), "a JPEG of the kind hierarchical"),
    ],
)
def test_kinds_of_jpeg(data, words):
    assert (
        failure(data + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" + bytes(40) + b"\xff\xd9") == f"unsupported: {words}"
    )


def bmp_with_header(size: int) -> bytes:
    return b"BM" + struct.pack("<LHHLLll", 118, 0, 0, 54, size, 4, 4) + bytes(90)


def bmp_with_colours(count: int) -> bytes:
    file = io.BytesIO()
    Image.new("P", (4, 4)).save(file, "BMP")
    data = bytearray(file.getvalue())
    head, pixels = data[:54], data[-16:]
    struct.pack_into("<L", head, 10, 54 + 4 * count)
    struct.pack_into("<L", head, 46, count)
    return bytes(head) + bytes(4 * count) + bytes(pixels)


def bmp_of(depth: int, compression: int) -> bytes:
    header = struct.pack("<LllHHLLllLL", 40, 4, 4, 1, depth, compression, 64, 0, 0, 0, 0)
    return b"BM" + struct.pack("<LHHL", 118, 0, 0, 54) + header + bytes(64)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bmp_of(24, 4), "unsupported: a BMP of 24 bits a pixel with JPEG"),
        (bmp_of(0, 5), "unsupported: a BMP of 0 bits a pixel with PNG"),
        (bmp_of(2, 0), "unsupported: a BMP of 2 bits a pixel with no compression"),
        (bmp_of(77, 0), "broken: Unsupported BMP pixel depth (77)"),
        (bmp_with_header(16), "unsupported: a BMP with a header of 16 bytes"),
        (bmp_with_header(66), "broken: Unsupported BMP header type (66)"),
        (bmp_with_colours(300), "unsupported: a BMP with a palette of 300 colours, more than its pixels can name"),
        (bmp_with_colours(60_000), "broken: invalid palette size"),
        (bmp_of(24, 99), "broken: Unsupported BMP compression (99)"),
    ],
)
def test_kinds_of_bmp(data, words):
    assert failure(data) == words


def test_jpegs_of_rarer_kinds_that_are_read():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for options in ({"progressive": True}, {"restart_marker_blocks": 1}, {"subsampling": "4:1:1"}, {"quality": 100}):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        assert decode_image(buffer.getvalue()).size == (24, 24)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(6), "a PAM of Netpbm (P7)"),
        (b"PF\n2 2\n-1.0\n" + bytes(48), "a map of coloured floats of Netpbm (PF)"),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\4CgBIP\0 \2+\xd5\xb3\x7f\0\0\0\rIHDR" + bytes(60),
            "a PNG as Apple's devices have it (CgBI)",
        ),
    ],
)
def test_other_kinds(data, words):
    assert failure(data) == f"unsupported: {words}"


def test_negative_sizes_are_damage():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "BMP")
    data = bytearray(file.getvalue())
    data[18:22] = struct.pack("<i", -4)
    assert failure(bytes(data)) == "broken: its header says that it has 4294967292 x 4 pixels"
