"""Pictures that are whole, but of a kind that cannot be read here: what kind that is, in words."""

from __future__ import annotations

import functools
import io
import struct

from PIL import Image, TiffImagePlugin

from tai_engine.decoding import tiff_tags
from tai_engine.picture_kinds import AVIF, BMP, EXTRA, HEAD_BYTES, JPEG, JPEG2000, PNG, PPM, RAW, TIFF, kind_of

_COMPRESSIONS = {
    1: "no compression", 2: "CCITT", 3: "Group 3", 4: "Group 4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    9: "JBIG", 10: "JBIG", 32766: "NeXT", 32771: "CCITT", 32773: "PackBits", 32809: "ThunderScan", 32946: "Deflate",
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI LogLuv",
    34677: "SGI LogLuv", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 34934: "JPEG XR", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_PHOTOMETRICS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab",
    10: "ITULab", 32803: "mosaic of a sensor", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
_MAX_SAMPLES = 4096
_UNKNOWN_SAMPLES = ("unknown pixel mode", "unknown data organization", "Invalid value for samples per pixel")
_SAMPLE_FORMATS = {1: "", 2: "signed ", 3: "float ", 4: "", 5: "complex ", 6: "complex float "}
_JPEG_PROCESSES = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless",
    0xC9: "arithmetic coding", 0xCA: "progressive arithmetic coding", 0xCB: "lossless arithmetic coding",
    0xCD: "hierarchical arithmetic coding", 0xCE: "hierarchical arithmetic coding",
    0xCF: "hierarchical lossless arithmetic coding",
}  # fmt: skip
_BMP_DEPTHS = (1, 2, 4, 8, 16, 24, 32, 64)
_BMP_HEADERS = (12, *range(16, 65), 108, 124)
_MAX_COLOURS = 4096  # more than that is damage
_BMP_READ = (1, 4, 8, 16, 24, 32)  # without compression
_BMP_COMPRESSIONS = {
    0: "no compression", 1: "RLE8", 2: "RLE4", 3: "bit fields", 4: "JPEG", 5: "PNG", 6: "bit fields", 11: "CMYK",
    12: "CMYK RLE8", 13: "CMYK RLE4",
}  # fmt: skip


def unsupported_kind(data: bytes, detail: str) -> str | None:
    """What kind of picture this is, if it seems to be whole but cannot be read for what it is; None if it is damaged.

    Args:
        data: a file that could not be decoded.
        detail: what the decoder said.
    """
    kind = kind_of(data[:HEAD_BYTES])
    if kind is TIFF:
        return _tiff(data)
    if kind is JPEG:
        return _jpeg(data)
    if kind is BMP:
        return _bmp(data, detail)
    if kind is PPM and data[:2] in (b"P7", b"PF"):
        return f"a {'PAM' if data[:2] == b'P7' else 'map of coloured floats'} of Netpbm ({data[:2].decode()})"
    if kind is PNG and data[12:16] == b"CgBI":
        return "a PNG as Apple's devices have it (CgBI)"
    if kind is AVIF and "not implemented" in detail.lower():
        return "an AVIF that uses what libavif does not implement"
    if kind is JPEG2000:
        at = data.find(b"\xff\x4f\xff\x51")
        channels = struct.unpack_from(">H", data, at + 40)[0] if 0 <= at <= len(data) - 42 else 0
        return f"a JPEG 2000 of {channels} channels" if 4 < channels <= 16384 else None
    return None


def _tiff(data: bytes) -> str | None:
    directory = tiff_tags.read_directory(data)
    if directory is None:
        return None
    first = directory.first
    if is_raw(data):
        return f"a camera's raw file ({RAW.package} reads them: {EXTRA})"
    compression, photometric = first(tiff_tags.COMPRESSION, 1), first(tiff_tags.PHOTOMETRIC)
    width, height, samples = first(tiff_tags.WIDTH), first(tiff_tags.HEIGHT), first(tiff_tags.SAMPLES, 1)
    bits = directory.values.get(tiff_tags.BITS, (1,))
    sample_formats = directory.values.get(tiff_tags.SAMPLE_FORMAT, (1,))
    is_plausible = (
        width and height and len(bits) in (1, samples) and samples <= _MAX_SAMPLES and all(1 <= n <= 128 for n in bits)
        and photometric in _PHOTOMETRICS and all(one in _SAMPLE_FORMATS for one in sample_formats)
    )  # fmt: skip
    if not is_plausible:
        return None
    if compression in _COMPRESSIONS and not _reads_compression(compression):
        return f"a TIFF with {_COMPRESSIONS[compression]} inside"
    if not _has_unknown_samples(data):
        return None  # it is damaged otherwise
    what = f"{_SAMPLE_FORMATS[sample_formats[0]]}{'/'.join(map(str, sorted(set(bits))))} bits"
    return f"a TIFF of {samples} channel{'s' if samples > 1 else ''} ({_PHOTOMETRICS[photometric]}) of {what}"


def _has_unknown_samples(data: bytes) -> bool:
    """Whether it is the kind of samples that Pillow does not know; `Image.open` would not say it."""
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
    except Exception as error:  # of whatever kind
        return str(error) in _UNKNOWN_SAMPLES
    return False


@functools.cache
def _reads_compression(compression: int) -> bool:
    """Whether this Pillow's libtiff has a codec: those that write also read."""
    name = TiffImagePlugin.COMPRESSION_INFO.get(compression)
    if name is None:
        return False
    if name == "raw":
        return True
    for mode in ("RGB", "L", "1"):
        try:
            Image.new(mode, (16, 16)).save(io.BytesIO(), "TIFF", compression=name)
        except Exception:
            continue
        return True
    return False


def is_raw(data: bytes) -> bool:
    """Whether a TIFF is a camera's raw file: a DNG, or one whose first picture is a preview of another."""
    directory = tiff_tags.read_directory(data)
    if directory is None:
        return False
    values = directory.values
    is_preview = directory.first(tiff_tags.SUBFILE) & 1 == 1 and tiff_tags.SUB_DIRECTORIES in values
    return tiff_tags.DNG_VERSION in values or is_preview


def _jpeg(data: bytes) -> str | None:
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0xFF, 0x00, 0x01, *range(0xD0, 0xD9)):
            at += 1
            continue
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, _, _, channels = struct.unpack_from(">BHHB", data, at + 4)
            if marker in _JPEG_PROCESSES:
                return f"a JPEG of the kind {_JPEG_PROCESSES[marker]}"
            if bits != 8 and 2 <= bits <= 16:
                return f"a JPEG of {bits} bits a sample"
            if channels not in (1, 3, 4) and length == 8 + 3 * channels:
                return f"a JPEG of {channels} channels"
            return None
        if marker in (0xD9, 0xDA):
            return None
        at += 2 + length
    return None


def _bmp(data: bytes, detail: str) -> str | None:
    if not detail.startswith(("Unsupported BMP", "invalid palette")) or len(data) < 50:
        return None
    header_bytes = struct.unpack_from("<L", data, 14)[0]
    if detail.startswith("invalid palette"):
        depth, colours = struct.unpack_from("<H16xL", data, 28)
        more = header_bytes >= 40 and 2**depth < colours <= _MAX_COLOURS
        return f"a BMP with a palette of {colours} colours, more than its pixels can name" if more else None
    if detail.startswith("Unsupported BMP header type"):
        return f"a BMP with a header of {header_bytes} bytes" if header_bytes in _BMP_HEADERS else None
    if header_bytes < 40:
        depth, compression = struct.unpack_from("<H", data, 24)[0], 0
    else:
        depth, compression = struct.unpack_from("<HL", data, 28)
    is_known = depth in (0, *_BMP_DEPTHS) and compression in _BMP_COMPRESSIONS
    if not is_known or (compression == 0 and depth in _BMP_READ):
        return None
    return f"a BMP of {depth} bits a pixel with {_BMP_COMPRESSIONS[compression]}"
