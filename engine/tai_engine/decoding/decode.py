"""A file or bytes in, an upright RGB picture out, or one exception that says why not."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

from PIL import Image, UnidentifiedImageError

from tai_engine.decoding import raw
from tai_engine.decoding.colours import to_rgb
from tai_engine.decoding.cut_off import bytes_missing, with_end_marker
from tai_engine.decoding.metadata import without_metadata
from tai_engine.decoding.orientation import box_of_draft, is_quarter, turn_of
from tai_engine.decoding.pillow import open_picture, pillow_in_use
from tai_engine.decoding.tiff_tags import HEIGHT, WIDTH
from tai_engine.decoding.unsupported import is_raw, unsupported_kind
from tai_engine.errors import ItemError, UserError, reason_of
from tai_engine.picture_kinds import EXTRA, HEAD_BYTES, TIFF, kind_of
from tai_engine.regular_files import open_regular

METADATA_REMARK = "metadata passed over"
"""What a picture's remark begins with that was decoded without its metadata."""
END_REMARK = "encoded although the mark at the end of the file is missing, for all pixels are there"
"""The remark of a picture that lacks that alone."""


@dataclass(frozen=True)
class DecodeOptions:
    """How pictures are read.

    Attributes:
        max_megapixels: larger pictures are refused after a look at their header. Decoding takes 3 to 10 bytes a pixel.
        max_aspect: pictures with one side more than so many times the other are refused, for a model's resize of the
            short side would blow up the long one.
        exif: turn the picture as its EXIF orientation says (Pillow turns TIFF in any case).
        alpha: what shows through transparent pixels; ``"white"`` or ``"black"``.
        draft: JPEGs are decoded at a half, a quarter or an eighth of their size as long as both sides keep so many
            times the size that the model takes, which is faster and changes features a little; 0 decodes them whole.

    Raises:
        UserError: for a limit that is not positive, another colour, or a draft that would have to be enlarged.
    """

    max_megapixels: float = 128.0
    max_aspect: float = 200.0
    exif: bool = True
    alpha: str = "white"
    draft: float = 0.0

    def __post_init__(self) -> None:
        if not self.max_megapixels > 0:
            raise UserError(f"The limit of megapixels is {self.max_megapixels}; it must be above 0.")
        if not self.max_aspect >= 1:
            raise UserError(f"The limit of the aspect ratio is {self.max_aspect}; it must be 1 or more.")
        if self.alpha not in ("white", "black"):
            raise UserError(f"Transparent pixels cannot be shown on {self.alpha!r}: choose 'white' or 'black'.")
        if not (self.draft == 0 or self.draft >= 1):
            raise UserError(f"The draft is {self.draft}; it must be 0 (off), or 1 or more times the model's size.")

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture of other sides than are allowed.

        Raises:
            ItemError: that names our limit, and the option.
        """
        if max(width, height) >= 2**31:  # a negative number in the header
            raise ItemError("broken", f"its header says that it has {width} x {height} pixels")
        if (megapixels := width * height / 1e6) > self.max_megapixels:
            raise ItemError(
                "too-large",
                f"{width} x {height} are {megapixels:.0f} megapixels, {self.max_megapixels:g} are allowed: "
                "--max-megapixels takes more",
            )
        if max(width, height) > self.max_aspect * min(width, height):
            raise ItemError(
                "too-narrow",
                f"{width} x {height}: one side is more than {self.max_aspect:g} times the other, the most that "
                "tai-engine takes",
            )

    @property
    def recipe(self) -> dict[str, str | int | float | bool]:
        """What changes pixels, for the recipe key; the limits only change which pictures fail."""
        recipe: dict[str, str | int | float | bool] = {"decoding": 1, "exif": self.exif, "alpha": self.alpha}
        return recipe | {"draft": float(self.draft)} if self.draft else recipe


@dataclass(frozen=True, eq=False)
class Picture:
    """What was decoded of a file.

    Attributes:
        image: RGB, upright; at a smaller scale if it was drafted. It may be of a class of the file's format.
        size: width and height of the upright picture at its own scale.
        box: where the picture lies in ``image``, whose last pixels at a smaller scale may be of it in part only: left,
            top, right, bottom. None is all of it.
        remark: what had to be passed over in the file, ``"what: why"``; None if nothing.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float] | None = None
    remark: str | None = None


def decode_image(source: bytes | str | os.PathLike[str], options: DecodeOptions | None = None) -> Image.Image:
    """The picture in a file, or in bytes; never drafted.

    Of animations the first frame counts. Palettes, CMYK (also Adobe's inverted one), YCbCr, LAB, 1 bit and grey become
    RGB as Pillow does it; transparency is laid on ``options.alpha``. 16 bits are scaled by 1/257. Wider samples are
    read by the smallest range that holds them all: 0..1 (floats), 0..255, 0..65535 (integers); beyond these they are
    stretched from their least to their greatest. Colour profiles are not applied, as in CLIP's own preprocessing.

    Damage in what is not pixels (text, profiles, other metadata, a JPEG's mark of its end), and more of it than a
    decoder takes, does not matter.

    Memory: the decoded picture, and a second copy of it while it is converted or turned; of a damaged file two copies,
    and of a JPEG that is cut off a third of its pixels.

    Args:
        source: a path, or a file's contents.
        options: limits and conversions.

    Raises:
        ItemError: whatever is wrong with the picture, running out of memory included. Nothing else escapes but
            exceptions that are no `Exception`, such as KeyboardInterrupt.
    """
    image = decode_picture(source, options or DecodeOptions(), None).image
    return image if type(image) is Image.Image else image.copy()


def decode_picture(source: bytes | str | os.PathLike[str], options: DecodeOptions, image_size: int | None) -> Picture:
    """The same, drafted as ``options`` say.

    A resize of a drafted picture has to go by its ``size`` and ``box``: half a pixel that is taken for a whole one
    moves all the others, and that changes features ten times as much as the draft itself.

    Args:
        source: a path, or a file's contents.
        options: limits and conversions.
        image_size: S, pixels a side that the model takes, from which ``options.draft`` counts; None drafts nothing.

    Raises:
        ItemError: as `decode_image`.
    """
    with _open_source(source) as file, pillow_in_use:
        try:
            return _decode(file, options, image_size)
        except Exception as error:
            failure = _failure(error)
            if failure.reason not in ("broken", "truncated"):
                raise failure from error
        file.seek(0)
        data, whole = file.read(), replace(options, draft=0.0)
        for slimmer in without_metadata(data):
            with contextlib.suppress(Exception):
                picture = _decode(io.BytesIO(slimmer), options, image_size)
                return replace(picture, remark=f"{METADATA_REMARK}: {failure.detail}")
        if failure.reason == "truncated":
            with contextlib.suppress(Exception):
                ended = with_end_marker(data, lambda one: _decode(io.BytesIO(one), whole, None).image.tobytes())
                if ended is not None:
                    return replace(_decode(io.BytesIO(ended), options, image_size), remark=END_REMARK)
        if kind := unsupported_kind(data, failure.detail):
            raise ItemError("unsupported", kind)
        if missing := bytes_missing(data):
            raise ItemError("truncated", f"the file ends {missing:,} bytes before what it declares")
        raise failure


def shown_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the upright picture in a file, by its header alone where that says it.

    Raises:
        ItemError: as `decode_image`.
    """
    with contextlib.suppress(Exception), _open_source(path) as file, pillow_in_use:  # what is odd is decoded instead
        kind = kind_of(file.read(HEAD_BYTES))
        file.seek(0)
        if kind is not None and not kind.is_raw:
            with open_picture(file, kind) as image:
                # Some versions of Pillow turn the size of a TIFF before its pixels, some with them.
                tags = getattr(image, "tag_v2", None) if kind is TIFF else None
                width, height = image.size if tags is None else (int(tags[WIDTH]), int(tags[HEIGHT]))
                turn = turn_of(image)
                return (height, width) if turn is not None and is_quarter(turn) else (width, height)
    return decode_image(path).size


def _failure(error: Exception) -> ItemError:
    """Why decoding failed, as a reason."""
    if isinstance(error, ItemError):
        return error
    if isinstance(error, MemoryError):
        return ItemError("no-memory", "decoding it needs more memory than there is")
    detail = reason_of(error) if f"{error}" else f"its contents make no sense ({type(error).__name__})"
    if "build `libjxl`" in detail:  # advice for those who develop the decoder
        detail = "the decoder of JPEG XL takes it for damaged or cut off"
    if isinstance(error, OSError) and error.errno is not None:
        return ItemError("unreadable", error.strerror or detail)
    is_cut = isinstance(error, EOFError) or any(word in detail.lower() for word in ("truncated", "unexpected end"))
    return ItemError("truncated" if is_cut else "broken", detail)


@contextmanager
def _open_source(source: bytes | str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        if not source:
            raise ItemError("empty", "there are no bytes")
        yield io.BytesIO(source)
        return
    with open_regular(source) as file:
        if not file.peek(1):
            raise ItemError("empty", "the file has no bytes")
        yield file


def _decode(file: IO[bytes], options: DecodeOptions, image_size: int | None) -> Picture:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    kind = kind_of(head)
    if kind is not None and (kind.is_raw or (kind is TIFF and _is_raw(file))):
        developed = raw.develop(file.read(), options.check_size)
        return Picture(developed, developed.size)
    try:
        image = open_picture(file, kind)
    except Exception as error:
        if kind is not None and not isinstance(error, UnidentifiedImageError | ImportError):
            raise
        if kind is not None and not kind.is_readable:
            raise ItemError("unsupported", f"{kind.name}, which {kind.package} reads: {EXTRA}") from error
        if kind is not None:
            raise ItemError("broken", "it begins like a picture, but its header is damaged or cut off") from error
        raise ItemError("unknown-format", _what_else(head)) from error
    with image:
        width, height = image.size
        options.check_size(width, height)
        drafted = None
        if options.draft and image_size and image.format in ("JPEG", "MPO"):
            side = math.ceil(options.draft * image_size)
            drafted = image.draft(None, (side, side))  # the smallest of its scales at which no side is shorter
        image.load()
        rgb = to_rgb(image, options.alpha)
        turn = turn_of(image) if options.exif else None
        turned = rgb if turn is None else rgb.transpose(turn)
        if drafted is None or rgb.size == (width, height):
            return Picture(turned, turned.size)
        return Picture(turned, *box_of_draft(turned, (width, height), drafted[1][2:], turn))


def _what_else(head: bytes) -> str:
    """What a file is that is no picture, by how it begins."""
    if head[4:8] == b"ftyp":
        return "a video, or another thing of a known format"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, whose file `git lfs pull` fetches"
    return (
        "a web page, or other text with tags"
        if head.lstrip().startswith(b"<")
        else "it is no picture of a known format"
    )


def _is_raw(file: IO[bytes]) -> bool:
    """Whether a TIFF is a camera's; the file is at its beginning afterwards."""
    found = is_raw(file.read())
    file.seek(0)
    return found
