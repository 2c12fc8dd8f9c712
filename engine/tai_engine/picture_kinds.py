"""Which kinds of pictures there are: their suffixes, how their files begin, and the package that reads them."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass

HEAD_BYTES = 64
"""So many bytes from the beginning of a file tell its kind."""
EXTRA = "pip install 'tai-engine[formats]'"
"""The command that installs every package which is named here."""


@dataclass(frozen=True)
class PictureKind:
    """A kind of picture.

    Attributes:
        name: for people.
        suffixes: of its files, in lower case.
        formats: what Pillow calls it.
        package: to be installed beside Pillow for it, as on PyPI; empty where none is needed.
        module: what that package is imported as.
        is_raw: whether it is what a camera's sensor gave, which other software makes a picture of.
    """

    name: str
    suffixes: tuple[str, ...]
    formats: tuple[str, ...]
    package: str = ""
    module: str = ""
    is_raw: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether it can be read here."""
        return not self.module or importlib.util.find_spec(self.module) is not None


JPEG = PictureKind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"), ("JPEG", "MPO"))
PNG = PictureKind("PNG", (".png", ".apng"), ("PNG",))
WEBP = PictureKind("WebP", (".webp",), ("WEBP",))
AVIF = PictureKind("AVIF", (".avif", ".avifs"), ("AVIF",))
GIF = PictureKind("GIF", (".gif",), ("GIF",))
BMP = PictureKind("BMP", (".bmp", ".dib"), ("BMP", "DIB"))
TIFF = PictureKind("TIFF", (".tif", ".tiff"), ("TIFF",))
JPEG2000 = PictureKind("JPEG 2000", (".jp2", ".j2k", ".jpx", ".j2c", ".jpc", ".jpf"), ("JPEG2000",))
PPM = PictureKind("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), ("PPM",))
ICO = PictureKind("ICO", (".ico",), ("ICO",))
HEIF = PictureKind("HEIF", (".heic", ".heif", ".hif", ".heics", ".heifs"), ("HEIF",), "pillow-heif", "pillow_heif")
JPEG_XL = PictureKind("JPEG XL", (".jxl",), ("JXL",), "pillow-jxl-plugin", "pillow_jxl")
RAW = PictureKind(
    "camera raw",
    (".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    (),
    "rawpy",
    "rawpy",
    is_raw=True,
)
KINDS = (JPEG, PNG, WEBP, AVIF, GIF, BMP, TIFF, JPEG2000, PPM, ICO, HEIF, JPEG_XL, RAW)

# HEIF is here even where it cannot be read: telephones take pictures in it, which shall end as failed with a reason and
# not go unseen. Raw files and JPEG XL mostly lie beside a JPEG of the same picture.
IMAGE_SUFFIXES = tuple(suffix for kind in KINDS if not kind.package or kind is HEIF for suffix in kind.suffixes)
"""Names that end so are pictures, whatever is installed."""

_BEGINNINGS = (
    (re.compile(rb"\xff\xd8\xff"), JPEG),
    (re.compile(rb"\x89PNG"), PNG),
    (re.compile(rb"GIF8[79]a"), GIF),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WEBP),
    # Two letters are no proof: four bytes are kept free, or the size of the second header is one of a few.
    (re.compile(rb"BM(.{4}\x00{4}|.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00{3})", re.DOTALL), BMP),
    (re.compile(rb"(II\*\x00.{4}CR|FUJIFILMCCD-RAW|IIU\x00|IIR[OS]|MMOR)", re.DOTALL), RAW),
    (re.compile(rb"(II[*+]\x00|MM\x00[*+])"), TIFF),
    (re.compile(rb"(\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51)"), JPEG2000),
    (re.compile(rb"P[1-7fF]\s"), PPM),
    (re.compile(rb"\x00\x00\x01\x00[^\x00]\x00...\x00", re.DOTALL), ICO),
    (re.compile(rb"(\xff\x0a|\x00\x00\x00\x0cJXL )"), JPEG_XL),
    # Of some the first brand is HEIF's, as of all that are made like it, and AVIF's stands among the others.
    (re.compile(rb".{4}ftyp(avi[fs]|(mif1|msf1).{4}(.{4}){0,10}avi[fs])", re.DOTALL), AVIF),
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), HEIF),
    (re.compile(rb".{4}ftypcrx ", re.DOTALL), RAW),
)


def kind_of(head: bytes) -> PictureKind | None:
    """The kind of picture that a file is by its first `HEAD_BYTES`; None for what is none.

    Raw files that are made like TIFF count as that: what is further down tells them apart.
    """
    return next((kind for pattern, kind in _BEGINNINGS if pattern.match(head)), None)


@functools.cache
def picture_suffixes() -> tuple[str, ...]:
    """`IMAGE_SUFFIXES`, and those of the kinds whose packages are installed here."""
    more = (suffix for kind in KINDS if kind.package and kind.is_readable for suffix in kind.suffixes)
    return tuple(dict.fromkeys((*IMAGE_SUFFIXES, *more)))
