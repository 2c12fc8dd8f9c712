"""Damage and excess in what is not pixels does not fail a picture."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tai_engine.decoding.cut_off import lacks_scans
from tai_engine.decoding.decode import END_REMARK, DecodeOptions, decode_picture
from tai_engine.decoding.metadata import without_metadata
from tai_engine.errors import ItemError


def encode(image: Image.Image, format: str, **options) -> bytes:  # noqa: A002 - Pillow's word
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 12, height: int = 7) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body) if crc is None else crc)
    )


def with_chunk(data: bytes, more: bytes, before: bytes = b"IDAT") -> bytes:
    at = data.index(before) - 4
    return data[:at] + more + data[at:]


LARGE = zlib.compress(b"workflow " * 250_000)  # 2 MB, more than Pillow takes
PNG_CHUNKS = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "zTXt cut": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"words")[:-3]),
    "zTXt packed otherwise": chunk(b"zTXt", b"Comment\0\7words"),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(70 * 2**20))),
    "iCCP empty": chunk(b"iCCP", b""),
    "gAMA short": chunk(b"gAMA", b"\1"),
    "cHRM short": chunk(b"cHRM", b"\1\2\3\4"),
    "pHYs short": chunk(b"pHYs", b"\1"),
    "sRGB empty": chunk(b"sRGB", b""),
    "acTL short": chunk(b"acTL", b"\1"),
    "fcTL short": chunk(b"fcTL", b"\1"),
    "wrong checksum": chunk(b"tEXt", b"Comment\0words", crc=1),
    "wrong checksum of EXIF": chunk(b"eXIf", b"MM\0*", crc=1),
    "a name of our own with a wrong checksum": chunk(b"prVt", b"x", crc=1),
}


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_chunks_of_png(name, before):
    image = noise()
    picture = decode_picture(with_chunk(encode(image, "PNG"), PNG_CHUNKS[name], before), DecodeOptions(), None)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(image))


def test_what_was_passed_over_is_said_and_what_was_not_is_not():
    data = with_chunk(encode(noise(), "PNG"), PNG_CHUNKS["zTXt"])
    assert decode_picture(encode(noise(), "PNG"), DecodeOptions(), None).remark is None
    assert decode_picture(data, DecodeOptions(), None).remark == (
        "metadata passed over: Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"
    )


def test_transparency_palette_and_orientation_stay():
    image = Image.new("P", (3, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 0, 1, 0, 1])
    data = with_chunk(encode(image, "PNG", transparency=1, exif=exif(6)), PNG_CHUNKS["zTXt"])
    red, white = (255, 0, 0), (255, 255, 255)
    picture = decode_picture(data, DecodeOptions(), None)
    assert picture.image.size == (2, 3)  # turned by a quarter, clockwise
    assert [picture.image.getpixel((x, y)) for y in range(3) for x in range(2)] == [white, red, red, white, white, red]


@pytest.mark.parametrize("end", [b"", b"\0\0\0\0IEND", b"\0\0\0\7IDAT\1", b"\0\0\0\0IE", b"\xff" * 40])
def test_a_png_whose_end_is_damaged_has_all_its_pixels(end):
    data = encode(noise(), "PNG")
    data = data[: data.index(b"IEND") - 4] + end
    np.testing.assert_array_equal(np.asarray(decode_picture(data, DecodeOptions(), None).image), np.asarray(noise()))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 5}, {"restart_marker_blocks": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_the_mark_of_its_end_has_all_its_pixels(mode, options):
    """Of one that lacks pixels too, none is made up."""
    data = encode(noise(64, 48).convert(mode), "JPEG", **options)
    picture = decode_picture(data[:-2], DecodeOptions(), None)
    np.testing.assert_array_equal(
        np.asarray(picture.image), np.asarray(decode_picture(data, DecodeOptions(), None).image)
    )
    assert picture.remark == END_REMARK
    for missing in (6, 10, 40):
        with pytest.raises(ItemError, match="truncated"):
            decode_picture(data[:-missing], DecodeOptions(), None)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_jpeg_that_is_cut_between_two_scans_is_cut_off(mode):
    data = encode(noise(64, 48).convert(mode), "JPEG", progressive=True)
    # A scan is what stands between two of these marks, or their tables.
    ends = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] in (0xC4, 0xDA)]
    first = next(at for at in ends if data[at + 1] == 0xDA)
    cuts = [at for at in ends if at > first]
    assert len(cuts) >= 5
    for cut in cuts:
        assert lacks_scans(data[:cut])
        with pytest.raises(ItemError, match="truncated"):
            decode_picture(data[:cut], DecodeOptions(), None)
    assert not lacks_scans(data)
    assert not lacks_scans(data[:-2])  # as above: nothing but the mark is missing
    assert not lacks_scans(encode(noise(64, 48).convert(mode), "JPEG")[:300])


def test_what_scans_have_sent_is_counted_to_the_last_bit_of_every_component():
    def frame(*components: int) -> bytes:
        body = bytes([8, 0, 8, 0, 8, len(components)]) + b"".join(bytes([c, 0x11, 0]) for c in components)
        return b"\xff\xd8" + segment(0xC2, body)

    def scan(components: tuple[int, ...], first: int, last: int, bits: int) -> bytes:
        chosen = b"".join(bytes([c, 0]) for c in components)
        head = bytes([len(components)]) + chosen + bytes([first, last, bits])
        return segment(0xDA, head) + b"\x12\xff\x00\xff\xd0\x34"

    coarse, fine = scan((1, 2), 0, 0, 0x01), scan((1, 2), 0, 0, 0x10)
    rest = scan((1,), 1, 63, 0x00) + scan((2,), 1, 5, 0x00)
    assert lacks_scans(frame(1, 2))
    assert lacks_scans(frame(1, 2) + coarse + rest + scan((2,), 6, 63, 0x00))  # the last bit of 0 is missing
    assert lacks_scans(frame(1, 2) + coarse + fine + rest)  # 6 to 63 of the second
    assert lacks_scans(frame(1, 2) + coarse + fine + rest + scan((2,), 6, 63, 0x02))
    assert not lacks_scans(frame(1, 2) + coarse + fine + rest + scan((2,), 6, 63, 0x02) + scan((2,), 6, 63, 0x10))
    assert not lacks_scans(frame(1) + scan((1,), 0, 0, 0x00) + scan((1,), 1, 63, 0x00))


@pytest.mark.parametrize(
    ("mode", "body"), [("RGB", b"\0"), ("RGB", b""), ("L", b"\0\0\0"), ("RGBA", b"\0\0"), ("P", b"")]
)
def test_transparency_of_a_wrong_length_is_passed_over(mode, body):
    image = noise().convert(mode)
    plain = encode(image, "PNG")
    wanted = np.asarray(decode_picture(plain, DecodeOptions(), None).image)
    found = decode_picture(with_chunk(plain, chunk(b"tRNS", body), b"IDAT"), DecodeOptions(), None)
    np.testing.assert_array_equal(np.asarray(found.image), wanted)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_picture_that_is_cut_off_fails_all_the_same(cut):
    large = noise(60, 60)
    whole = with_chunk(encode(large, "PNG"), PNG_CHUNKS["zTXt"])
    at = whole.index(b"IDAT")
    with pytest.raises(ItemError):
        decode_picture(whole[: at + int(cut * (len(whole) - at))], DecodeOptions(), None)
    jpeg = encode(large, "JPEG")
    with pytest.raises(ItemError, match="truncated"):
        decode_picture(jpeg[: int(cut * len(jpeg))], DecodeOptions(), None)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


JPEG_SEGMENTS = {
    "JFIF short": segment(0xE0, b"JFIF\0\1"),
    "EXIF of nothing": segment(0xE1, b"Exif\0\0"),
    "EXIF of nonsense": segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "ICC of nothing": segment(0xE2, b"ICC_PROFILE\0"),
    "ICC of no end": segment(0xE2, b"ICC_PROFILE\0\1\7x"),
    "MPF of nothing": segment(0xE2, b"MPF\0"),
    "MPF of nonsense": segment(0xE2, b"MPF\0II*\0\xff\xff\xff\x7f"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\0008BIM\x04\x04\xff\0\0\0\0\xff"),
    "Adobe short": segment(0xEE, b"Adobe"),
    "comment of no bytes": segment(0xFE, b""),
}


@pytest.mark.parametrize("name", JPEG_SEGMENTS)
def test_segments_of_jpeg(name):
    plain = encode(noise(64, 48), "JPEG")
    wanted = np.asarray(decode_picture(plain, DecodeOptions(), None).image)
    data = plain[:2] + JPEG_SEGMENTS[name] + plain[2:]
    np.testing.assert_array_equal(np.asarray(decode_picture(data, DecodeOptions(), None).image), wanted)


def test_jpegs_keep_what_turns_and_what_colours_them():
    data = encode(noise(64, 48).convert("CMYK"), "JPEG", exif=exif(8))
    more = data[:2] + segment(0xFE, b"words") + segment(0xE2, b"MPF\0") + data[2:]
    with_orientation, without = without_metadata(more)
    assert with_orientation == data
    assert b"Adobe" in without
    assert b"Exif" not in without
    assert decode_picture(with_orientation, DecodeOptions(), None).size == (48, 64)
    assert list(without_metadata(encode(noise(), "BMP"))) == []
    assert list(without_metadata(data[: data.index(b"\xff\xda")])) == []  # no pixels


def tiff_with(tag: int, kind: int, count: int, value: int) -> bytes:
    """A TIFF one of whose tags, which is there already, is another one."""
    data = bytearray(encode(noise(), "TIFF", dpi=(72, 72), description="words", software="none"))
    directory = struct.unpack_from("<L", data, 4)[0]
    for at in range(directory + 2, directory + 2 + 12 * struct.unpack_from("<H", data, directory)[0], 12):
        if struct.unpack_from("<H", data, at)[0] == 296:  # unit of resolution
            struct.pack_into("<H", data, at + 8, 3)  # centimetres are reckoned
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<HHLL", data, at, tag, kind, count, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("tag", "kind", "count", "value"),
    [
        (282, 2, 4, 0x00616263),  # resolution in letters
        (282, 5, 1, 2**31),  # beyond the end
        (270, 2, 2**31, 8),  # a description of gigabytes
        (305, 99, 7, 8),  # no such type
        (296, 2, 3, 0x00616263),
    ],
)
def test_tags_of_tiff(tag, kind, count, value):
    picture = decode_picture(tiff_with(tag, kind, count, value), DecodeOptions(), None)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(noise()))


def test_tiffs_keep_only_the_tags_of_their_pixels():
    data = tiff_with(282, 2, 4, 0x00616263)
    assert decode_picture(data, DecodeOptions(), None).remark is not None
    for slimmer in without_metadata(data):
        with Image.open(io.BytesIO(slimmer)) as image:
            assert set(image.tag_v2) <= {256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284}
            np.testing.assert_array_equal(np.asarray(image), np.asarray(noise()))


def webp_with(more: bytes) -> bytes:
    data = encode(noise(), "WEBP", lossless=True, exif=exif(1), icc_profile=b"profile")
    body = data[8:] + more
    return b"RIFF" + struct.pack("<L", len(body)) + body


@pytest.mark.parametrize("more", [b"", b"EXIF\x10\0\0\0xx", b"XMP \xff\xff\xff\x7f<x", b"ICCP\2\0\0\0ab"])
def test_chunks_of_webp(more):
    picture = decode_picture(webp_with(more), DecodeOptions(), None)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(noise()))
    slim = next(iter(without_metadata(webp_with(more))))
    assert b"profile" not in slim
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(slim)).convert("RGB")), np.asarray(noise()))
