"""Kinds of pictures that other packages read, where these are installed and where they are not."""

import importlib.util
import io
import struct

import numpy as np
import pytest
from PIL import Image

from tai_engine.decoding.decode import DecodeOptions, decode_image, shown_size
from tai_engine.errors import ItemError
from tai_engine.picture_kinds import HEAD_BYTES, KINDS, kind_of, picture_suffixes


@pytest.fixture
def nothing_installed(monkeypatch):
    """As if no package stood beside Pillow."""
    modules = {kind.module for kind in KINDS if kind.module}
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in modules else find(name, *more))
    for module in modules:
        monkeypatch.setitem(__import__("sys").modules, module, None)
    picture_suffixes.cache_clear()
    yield
    picture_suffixes.cache_clear()


def gradient() -> Image.Image:
    values = np.linspace(0, 255, 64).astype(np.uint8)
    return Image.fromarray(
        np.stack([np.tile(values, (32, 1)), np.full((32, 64), 90, np.uint8), np.tile(values[::-1], (32, 1))], -1)
    )


def dng(width: int = 64, height: int = 48) -> bytes:
    """The raw picture of a red lamp, as a camera without compression writes it."""
    mosaic = np.full((height, width), 1000, "<u2")
    mosaic[0::2, 0::2] = 50000
    pixels = mosaic.tobytes()
    rationals = np.array([[1, 1], [0, 1], [0, 1], [0, 1], [1, 1], [0, 1], [0, 1], [0, 1], [1, 1]], "<i4").tobytes()
    tags = [
        (254, 4, 1, bytes(4)), (256, 4, 1, struct.pack("<L", width)), (257, 4, 1, struct.pack("<L", height)),
        (258, 3, 1, struct.pack("<H", 16)), (259, 3, 1, struct.pack("<H", 1)), (262, 3, 1, struct.pack("<H", 32803)),
        (271, 2, 5, b"Lamp\0"), (272, 2, 5, b"Lamp\0"), (273, 4, 1, struct.pack("<L", 8)),
        (277, 3, 1, struct.pack("<H", 1)), (278, 4, 1, struct.pack("<L", height)),
        (279, 4, 1, struct.pack("<L", len(pixels))), (284, 3, 1, struct.pack("<H", 1)),
        (33421, 3, 2, struct.pack("<HH", 2, 2)), (33422, 1, 4, bytes([0, 1, 1, 2])), (50706, 1, 4, bytes([1, 4, 0, 0])),
        (50708, 2, 5, b"Lamp\0"), (50721, 10, 9, rationals), (50728, 5, 3, struct.pack("<6L", 1, 1, 1, 1, 1, 1)),
        (50778, 3, 1, struct.pack("<H", 21)),
    ]  # fmt: skip
    start = 8 + len(pixels)
    extra_at, extra, table = start + 2 + 12 * len(tags) + 4, b"", b""
    for tag, kind, count, value in tags:
        if len(value) > 4:
            place, extra = struct.pack("<L", extra_at + len(extra)), extra + value
        else:
            place = value.ljust(4, b"\0")
        table += struct.pack("<HHL", tag, kind, count) + place
    return b"II*\0" + struct.pack("<L", start) + pixels + struct.pack("<H", len(tags)) + table + bytes(4) + extra


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
JXL = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 64


@pytest.mark.parametrize(
    ("data", "name", "package"),
    [
        (HEIC, "HEIF", "pillow-heif"),
        (JXL, "JPEG XL", "pillow-jxl-plugin"),
        (b"\xff\x0a" + b"\0" * 40, "JPEG XL", "pillow-jxl-plugin"),
    ],
)
def test_what_a_package_would_read_says_which(nothing_installed, data, name, package):
    with pytest.raises(ItemError) as caught:
        decode_image(data)
    assert str(caught.value) == f"unsupported: {name}, which {package} reads: pip install 'tai-engine[formats]'"


@pytest.mark.parametrize("data", [dng(), b"II*\0\x10\0\0\0CR\2\0" + bytes(60), b"FUJIFILMCCD-RAW 0201" + bytes(60)])
def test_raw_files_without_libraw_say_what_they_are(nothing_installed, data):
    with pytest.raises(ItemError) as caught:
        decode_image(data)
    assert str(caught.value) == "unsupported: a camera's raw file (rawpy reads them: pip install 'tai-engine[formats]')"


def test_suffixes_count_where_their_package_is_there(nothing_installed):
    assert {".jpg", ".heic"} <= set(picture_suffixes())
    assert not {".jxl", ".dng"} & set(picture_suffixes())


@pytest.mark.parametrize("brand", [b"mif1", b"msf1"])
def test_avif_is_that_whatever_its_first_brand(brand):
    """Packages for HEIF take it for their own, and cannot decode it."""
    buffer = io.BytesIO()
    gradient().save(buffer, "AVIF", quality=100)
    data = buffer.getvalue()
    wanted = np.asarray(decode_image(data))
    renamed = data.replace(b"ftypavif", b"ftyp" + brand, 1)
    assert kind_of(renamed[:HEAD_BYTES]).name == "AVIF"
    np.testing.assert_array_equal(np.asarray(decode_image(renamed)), wanted)
    length = struct.unpack_from(">L", renamed)[0]
    assert kind_of(renamed[:16] + bytes(length - 16) + renamed[length:]).name != "AVIF"


def test_heic_is_decoded_upright():
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(gradient()).save(buffer, quality=95)
    found = np.asarray(decode_image(buffer.getvalue()), float)
    assert np.abs(found - np.asarray(gradient(), float)).mean() < 3
    assert ".heic" in picture_suffixes()
    with pytest.raises(ItemError) as caught:
        decode_image(buffer.getvalue()[:200])
    assert caught.value.reason in ("broken", "truncated")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    pillow_heif.register_heif_opener()
    gradient().save(buffer, "HEIF", quality=95, exif=exif.tobytes())
    assert decode_image(buffer.getvalue()).size == (32, 64)


def test_jpeg_xl_is_decoded():
    pytest.importorskip("pillow_jxl")
    buffer = io.BytesIO()
    gradient().save(buffer, "JXL", lossless=True)
    np.testing.assert_array_equal(np.asarray(decode_image(buffer.getvalue())), np.asarray(gradient()))
    assert ".jxl" in picture_suffixes()
    with pytest.raises(ItemError):
        decode_image(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def test_raw_files_are_developed():
    pytest.importorskip("rawpy")
    found = np.asarray(decode_image(dng()), float)
    assert found.shape == (48, 64, 3)
    red, green, blue = found[8:-8, 8:-8].reshape(-1, 3).mean(0)
    assert red > 150
    assert max(green, blue) < red / 3
    with pytest.raises(ItemError, match=r"too-large: 64 x 48 are 0 megapixels, 0\.001 are allowed: --max-megapixels"):
        decode_image(dng(), DecodeOptions(max_megapixels=0.001))
    with pytest.raises(ItemError, match=r"^(broken|truncated|unsupported): "):
        decode_image(dng()[:3000])


def test_kinds_by_their_first_bytes():
    def head(format: str, **options) -> bytes:  # noqa: A002 - Pillow's word
        buffer = io.BytesIO()
        gradient().save(buffer, format, **options)
        return buffer.getvalue()[:32]

    for format, name in (  # noqa: A001
        ("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "WebP"), ("AVIF", "AVIF"), ("GIF", "GIF"), ("BMP", "BMP"),
        ("TIFF", "TIFF"), ("JPEG2000", "JPEG 2000"), ("PPM", "PPM"), ("ICO", "ICO"),
    ):  # fmt: skip
        assert kind_of(head(format)).name == name
    assert kind_of(HEIC[:32]).name == "HEIF"
    for other in (
        b"",
        b"BM",
        b"BMW is a car and this is no picture",
        b"%PDF-1.7",
        b"PK\3\4" + bytes(28),
        b"P5",
        b"\0" * 32,
    ):
        assert kind_of(other) is None


@pytest.mark.parametrize(("format", "package"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_sizes_of_what_other_packages_read(tmp_path, format, package):  # noqa: A002 - Pillow's word
    module = pytest.importorskip(package)
    if package == "pillow_heif":
        module.register_heif_opener()
    gradient().save(tmp_path / "a", format)
    assert shown_size(tmp_path / "a") == decode_image(tmp_path / "a").size == (64, 32)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_of_turned_tiffs_by_their_headers(tmp_path, monkeypatch, orientation, compression):
    """However Pillow turns them, and without their pixels."""
    gradient().save(tmp_path / "a.tif", compression=compression, tiffinfo={274: orientation})
    decoded = decode_image(tmp_path / "a.tif").size
    monkeypatch.setattr("tai_engine.decoding.decode.decode_image", lambda _: pytest.fail("it was decoded"))
    assert shown_size(tmp_path / "a.tif") == decoded == ((64, 32) if orientation < 5 else (32, 64))


def test_sizes_of_raw_files(tmp_path):
    pytest.importorskip("rawpy")
    (tmp_path / "a.dng").write_bytes(dng())
    assert shown_size(tmp_path / "a.dng") == decode_image(dng()).size


def test_sizes_of_files_whose_metadata_no_decoder_takes(tmp_path):
    buffer = io.BytesIO()
    gradient().save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + b"\0\0\0\1gAMA\1\0\0\0\0" + data[at:])
    assert shown_size(tmp_path / "a.png") == (64, 32)
    with pytest.raises(ItemError, match="missing"):
        shown_size(tmp_path / "b.png")
