import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tai_engine.decoding.decode import DecodeOptions, decode_image, decode_picture
from tai_engine.decoding.pixels import SquarePixels
from tai_engine.errors import REASONS, ItemError, UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, format: str, **options) -> bytes:  # noqa: A002 - Pillow's word
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 48, height: int = 64) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(width: int, height: int, rows: bytes, bits: int = 8) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(rows), b"IEND")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def pixels(data: bytes | Path, options: DecodeOptions | None = None) -> np.ndarray:
    image = decode_image(data, options)
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes | str | Path, options: DecodeOptions | None = None) -> str:
    with pytest.raises(ItemError) as caught:
        decode_image(data, options)
    assert str(caught.value) == f"{caught.value.reason}: {caught.value.detail}"
    assert caught.value.detail
    return caught.value.reason


# --- what is converted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
    ],
)
def test_lossless_formats_come_back_to_the_bit(format, options):  # noqa: A002
    assert np.array_equal(pixels(encode(noise(), format, **options)), np.asarray(noise()))


def test_jpeg_equals_pillow_to_the_bit(tmp_path):
    data = encode(noise(), "JPEG", quality=80)
    (tmp_path / "a.jpg").write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels(data), expected)
    assert np.array_equal(pixels(tmp_path / "a.jpg"), expected)


def test_one_bit_and_grey():
    assert pixels(encode(Image.new("1", (3, 2), 1), "PNG"))[0, 0].tolist() == [255, 255, 255]
    assert pixels(encode(Image.new("L", (3, 2), 77), "PNG")).tolist() == [[[77, 77, 77]] * 3] * 2


def test_sixteen_bit_grey_is_scaled():
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    expected = [0, 0, 1, 1, 128, 255]
    for format in ("PNG", "TIFF", "PPM"):  # noqa: A001
        assert pixels(encode(Image.fromarray(values), format))[0, :, 1].tolist() == expected


def test_sixteen_bit_grey_in_big_endian_tiff():
    # Width 2, height 1, 16 bits, plain, black is zero, data at byte 122, one sample, one row, 4 bytes.
    fields = {256: 2, 257: 1, 258: 16, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: 4}
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in fields.items())
    data = b"MM\0*" + struct.pack(">IH", 8, len(fields)) + entries + struct.pack(">I", 0)
    assert len(data) == 122
    assert pixels(data + struct.pack(">HH", 257 * 3, 65535))[0, :, 0].tolist() == [3, 255]


def test_sixteen_bit_colour_png():
    data = png(1, 1, b"\0" + struct.pack(">3H", 0xFF00, 0x8000, 0x0100), bits=16)
    assert pixels(data).tolist() == [[[255, 128, 1]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 500.0, 1000.0], [0, 128, 255]),
        ([np.nan, 1.0, np.inf], [0, 255, 0]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_float_tiff(values, expected):
    data = encode(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert pixels(data)[0, :, 2].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([0, 100_000, 200_000], [0, 128, 255]),
        ([-10, 0, 10], [0, 128, 255]),
        ([70_000, 70_000, 70_000], [0, 0, 0]),
    ],
)
def test_wide_integer_tiff(values, expected):
    data = encode(Image.fromarray(np.array([values], dtype=np.int32)), "TIFF")
    assert pixels(data)[0, :, 2].tolist() == expected


def test_a_dark_sixteen_bit_pgm_stays_dark():
    assert pixels(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 200, 255)).tolist() == [[[0, 0, 0], [1, 1, 1], [1, 1, 1]]]


def test_cmyk_with_and_without_adobes_inversion():
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    assert pixels(encode(ink, "TIFF"))[8, 8].tolist() == [255, 0, 0]
    jpeg = encode(ink, "JPEG", quality=100)  # Pillow writes Adobe's marker and inverts
    assert b"Adobe" in jpeg
    assert np.abs(pixels(jpeg)[8, 8].astype(int) - RED).max() <= 2


def test_other_colour_spaces():
    assert np.abs(pixels(encode(Image.new("YCbCr", (8, 8), (76, 85, 255)), "TIFF"))[0, 0].astype(int) - RED).max() <= 2
    grey = pixels(encode(Image.new("LAB", (8, 8), (137, 128, 128)), "TIFF"))[0, 0].astype(int)  # L* 53.7: middle grey
    assert np.abs(grey - 128).max() <= 2


def test_transparency_is_laid_on_white_or_black():
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(255, 0, 0, 255), (255, 0, 0, 51), (9, 9, 9, 0)])
    data = encode(rgba, "PNG")
    assert pixels(data).tolist() == [[[255, 0, 0], [255, 204, 204], [255, 255, 255]]]
    assert pixels(data, DecodeOptions(alpha="black")).tolist() == [[[255, 0, 0], [51, 0, 0], [0, 0, 0]]]
    grey = Image.new("LA", (2, 1))
    grey.putdata([(100, 255), (0, 127)])
    assert pixels(encode(grey, "PNG")).tolist() == [[[100] * 3, [128] * 3]]


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    assert pixels(encode(image, "PNG")).tolist() == [[[*RED], [*GREEN]]]
    assert pixels(encode(image, "PNG", transparency=1)).tolist() == [[[*RED], [*WHITE]]]
    assert pixels(encode(image, "GIF", transparency=0)).tolist() == [[[*WHITE], [*GREEN]]]
    assert pixels(encode(image, "PNG", transparency=b"\xff\x00")).tolist() == [[[*RED], [*WHITE]]]
    rgb = Image.new("RGB", (1, 1), RED)
    assert pixels(encode(rgb, "PNG", transparency=RED)).tolist() == [[[*WHITE]]]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_animations_the_first_frame_counts(format):  # noqa: A002
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (pixels(data) == RED).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(format, orientation):  # noqa: A002
    upright = Image.fromarray(np.kron(np.array([[0, 60, 120], [180, 220, 250]], np.uint8), np.ones((8, 8), np.uint8)))
    # What a camera stores, written out from the EXIF standard: where row 0 and column 0 of the stored picture are.
    a = np.asarray(upright)
    stored = (a, a[:, ::-1], a[::-1, ::-1], a[::-1], a.T, a.T[::-1], a.T[::-1, ::-1], a.T[:, ::-1])[orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif)
    assert np.abs(pixels(data)[:, :, 0].astype(int) - a).max() <= 3
    if format != "TIFF":
        assert np.abs(pixels(data, DecodeOptions(exif=False))[:, :, 0].astype(int) - stored).max() <= 3


def test_damaged_exif_does_not_lose_the_picture():
    data = encode(Image.new("RGB", (8, 8), RED), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert (pixels(data) == RED).all()


def test_pixels_do_not_depend_on_the_suffix(tmp_path):
    (tmp_path / "really_a_png.jpg").write_bytes(encode(noise(), "PNG"))
    assert np.array_equal(pixels(tmp_path / "really_a_png.jpg"), np.asarray(noise()))


# --- what fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("keep", [0.0, 0.002, 0.01, 0.3, 0.7, 0.95])
def test_files_cut_off_anywhere(format, keep):  # noqa: A002
    data = encode(noise(), format)
    cut = data[: int(len(data) * keep)]
    expected = {"truncated", "broken", "unknown-format"} if cut else {"empty"}
    assert reason(cut) in expected
    if keep >= 0.3:
        assert reason(cut) == "truncated"


def test_damage_in_the_middle_is_noticed_or_decoded_but_nothing_else_escapes():
    rng = np.random.default_rng(1)
    outcomes = set()
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "BMP", "PPM", "ICO"):  # noqa: A001
        data = np.frombuffer(encode(noise(), format), np.uint8)
        for _ in range(15):
            damaged = data.copy()
            places = rng.integers(0, len(data), 20)
            damaged[places] = rng.integers(0, 256, 20)
            try:
                decode_image(damaged.tobytes(), DecodeOptions(max_megapixels=1))
                outcomes.add("decoded")
            except ItemError as error:
                outcomes.add(error.reason)
    assert {"decoded", "broken"} <= outcomes <= {*REASONS, "decoded"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"this is a text that somebody called photo.jpg\n" * 20, "unknown-format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown-format"),
        (b"\0" * 5000, "unknown-format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "unknown-format"),  # would start another program
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + b"\0" * 64, "unknown-format"),
        (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 64, "unknown-format"),
        (b"BMW is a brand of cars, and this a text\n", "unknown-format"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "broken"),
        (b"\xff\xd8\xff\xd9", "broken"),
    ],
)
def test_contents_that_are_no_picture(tmp_path, data, expected):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert reason(path) == reason(data) == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "a pointer of Git LFS, whose file"),
        (b"<!DOCTYPE html><html></html>", "a web page, or other text with tags"),
        (b'\n<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page, or other text with tags"),
        (b'{"error": "rate limited"}', "it is no picture of a known format"),
    ],
)
def test_what_servers_send_in_the_place_of_pictures(data, words):
    with pytest.raises(ItemError, match=words) as caught:
        decode_image(data)
    assert caught.value.reason == "unknown-format"


def test_paths_that_cannot_be_opened(tmp_path, monkeypatch):
    assert reason(tmp_path / "none.jpg") == "missing"
    assert reason(tmp_path / "none.jpg" / "x.jpg") == "missing"
    assert reason("a\0b.jpg") == "missing"
    assert reason("\ud800.jpg") == "missing"
    assert reason(tmp_path) == "not-a-file"
    assert reason("/dev/null") == "not-a-file"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert reason(tmp_path / "loop.jpg") == "missing"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not-a-file"  # and does not wait for a writer
    for number, expected in ((13, "no-permission"), (5, "unreadable"), (24, "unreadable")):
        monkeypatch.setattr(os, "open", lambda *_, n=number: (_ for _ in ()).throw(OSError(n, os.strerror(n))))
        assert reason(tmp_path / "x.jpg") == expected


def test_a_device_error_while_reading(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode(noise(), "PNG"))
    monkeypatch.setattr(Image, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert reason(path) == "unreadable"


def test_running_out_of_memory_and_any_other_exception(monkeypatch):
    data = encode(noise(), "PNG")
    for error, expected in (
        (MemoryError(), "no-memory"),
        (ZeroDivisionError("x"), "broken"),
        (RecursionError(), "broken"),
    ):
        monkeypatch.setattr(Image, "open", lambda *_, e=error, **__: (_ for _ in ()).throw(e))
        assert reason(data) == expected
    monkeypatch.setattr(Image, "open", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        decode_image(data)


def bomb(width: int, height: int) -> bytes:
    """A header that promises many pixels, with next to no data behind it."""
    return png(width, height, b"\0")


def test_bombs_are_refused_by_their_header():
    for width, height in ((12_000, 12_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1)):
        assert reason(bomb(width, height)) == "too-large"
    with pytest.raises(ItemError, match=r"12000 x 12000 are 144 megapixels, 128 are allowed: --max-megapixels takes"):
        decode_image(bomb(12_000, 12_000))
    # Pillow would refuse these by a limit of its own, which nobody can set.
    with pytest.raises(ItemError, match=r"20000 x 10000 are 200 megapixels, 128 are allowed: --max-megapixels takes"):
        decode_image(bomb(20_000, 10_000))
    ico = encode(noise(16, 16), "ICO", sizes=[(16, 16)])
    inside = bomb(20_000, 10_000)
    at = struct.unpack_from("<I", ico, 18)[0]
    ico = ico[:14] + struct.pack("<I", len(inside)) + ico[18:at] + inside
    assert reason(ico) in ("truncated", "broken")  # whatever a picture in a picture says of its size


def test_the_limit_is_a_setting_that_may_lie_above_pillows_own():
    assert reason(encode(noise(100, 100), "PNG"), DecodeOptions(max_megapixels=0.0099)) == "too-large"
    assert pixels(encode(noise(100, 100), "PNG"), DecodeOptions(max_megapixels=0.01)).shape == (100, 100, 3)
    before = Image.MAX_IMAGE_PIXELS
    wide = encode(Image.new("1", (20_000, 10_000)), "PNG")
    assert reason(wide) == "too-large"
    # Pillow alone would refuse 200 megapixels; a picture cut off after its header shows that ours let it through.
    assert reason(wide[:60], DecodeOptions(max_megapixels=300)) in ("truncated", "broken")
    assert before == Image.MAX_IMAGE_PIXELS


def test_slivers_are_refused():
    assert reason(encode(Image.new("RGB", (2001, 10)), "PNG")) == "too-narrow"
    assert pixels(encode(Image.new("RGB", (10, 2000)), "PNG")).shape == (2000, 10, 3)


# --- around it -------------------------------------------------------------------------------------------------------


def test_pillows_warnings_are_silenced_here_alone():
    data = encode(Image.new("1", (10_000, 10_000)), "PNG")  # above Pillow's limit for a warning, below ours
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(data).size == (10_000, 10_000)
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(io.BytesIO(data))
    assert list(warnings.filters) == before


def test_many_threads_leave_the_warning_filters_as_they_were():
    data = encode(noise(), "PNG")
    before = list(warnings.filters)
    errors = []

    def work():
        try:
            for _ in range(30):
                decode_image(data)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(warnings.filters) == before


def test_files_are_closed_and_pictures_can_be_sent_to_other_processes(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(encode(noise(), "GIF"))
    before = len(list(Path("/dev/fd").iterdir()))
    image = decode_image(path)
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(image))), np.asarray(image))
    error = pickle.loads(pickle.dumps(ItemError("broken", "x")))
    assert (error.reason, error.detail, str(error)) == ("broken", "x", "broken: x")


def test_options():
    assert DecodeOptions().recipe == {"decoding": 1, "exif": True, "alpha": "white"}
    assert DecodeOptions(max_megapixels=5).recipe == DecodeOptions().recipe
    for options in ({"max_megapixels": 0}, {"max_megapixels": float("nan")}, {"max_aspect": 0.5}, {"alpha": "pink"}):
        with pytest.raises(UserError):
            DecodeOptions(**options)
    with pytest.raises(ValueError, match="expected one of missing"):
        ItemError("odd", "x")


# --- drafts ----------------------------------------------------------------------------------------------------------


def smooth(width: int, height: int) -> Image.Image:
    """Waves that differ in each direction and channel, and survive a JPEG."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 31 + c) + np.cos(y / 23 - c) + (x > width / 2) for c in range(3)]
    return Image.fromarray((np.stack(waves, -1) * 50 + 100).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "draft", "expected"),
    [
        ((400, 300), 1.0, (100, 75)),  # an eighth would be 50 x 37.5, too small for 64
        ((512, 520), 1.0, (64, 65)),
        ((511, 520), 1.0, (128, 130)),
        ((400, 300), 2.0, (200, 150)),
        ((255, 600), 2.0, (255, 600)),
        ((301, 259), 2.0, (151, 130)),
        ((400, 300), 0.0, (400, 300)),
    ],
)
def test_drafts_keep_what_the_model_needs(size, draft, expected):
    data = encode(smooth(*size), "JPEG", quality=90)
    picture = decode_picture(data, DecodeOptions(draft=draft), 64)
    assert picture.image.size == expected
    assert picture.size == size
    scale = round(size[0] / expected[0])
    assert picture.box == (None if scale == 1 else (0, 0, size[0] / scale, size[1] / scale))
    # Without a model's size, and of other formats, nothing is drafted.
    assert decode_picture(data, DecodeOptions(draft=draft), None).image.size == size
    assert decode_image(data, DecodeOptions(draft=draft)).size == size
    png_data = encode(smooth(*size), "PNG")
    assert decode_picture(png_data, DecodeOptions(draft=draft), 64).image.size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_drafted_picture_lies_where_the_whole_one_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(517, 391), "JPEG", quality=95, exif=exif)  # a half of it has a half pixel at two edges
    pixels_of, options = SquarePixels(64, "squash"), DecodeOptions(draft=2)
    picture = decode_picture(data, options, 64)
    assert picture.image.size == ((259, 196) if orientation < 5 else (196, 259))
    whole = pixels_of(decode_image(data)).astype(int)

    def distance(pixels: np.ndarray) -> float:
        return float(np.abs(pixels.astype(int) - whole).mean())

    with_box = distance(pixels_of(picture.image, picture.size, picture.box))
    assert with_box < 0.7
    assert with_box < distance(pixels_of(picture.image)) / 1.3  # half a pixel matters


def test_a_draft_is_part_of_the_recipe_and_must_not_enlarge():
    assert DecodeOptions().recipe == {"decoding": 1, "exif": True, "alpha": "white"}
    assert DecodeOptions(draft=2).recipe == {"decoding": 1, "exif": True, "alpha": "white", "draft": 2.0}
    for wrong in (0.5, -1.0, float("nan")):
        with pytest.raises(UserError, match=r"must be 0 \(off\), or 1 or more"):
            DecodeOptions(draft=wrong)
