"""A file or bytes in, an upright RGB picture out, or one exception that says why not."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError

from tai_engine.decoding.colours import to_rgb
from tai_engine.errors import ItemError, UserError
from tai_engine.regular_files import open_regular

# Formats of photos and drawings. The others that Pillow knows are documents, run other programs (EPS) or guess.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "ICO")
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Whether a turn moves the right edge (or the lower one that takes its place) to the left, the other one to the top, and
# whether it exchanges width and height.
_EDGES: dict[Image.Transpose | None, tuple[bool, bool, bool]] = {
    None: (False, False, False),
    Image.Transpose.FLIP_LEFT_RIGHT: (True, False, False),
    Image.Transpose.ROTATE_180: (True, True, False),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, True, False),
    Image.Transpose.TRANSPOSE: (False, False, True),
    Image.Transpose.ROTATE_270: (True, False, True),
    Image.Transpose.TRANSVERSE: (True, True, True),
    Image.Transpose.ROTATE_90: (False, True, True),
}


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

    @property
    def recipe(self) -> dict[str, str | int | float | bool]:
        """What changes pixels, for the recipe key; the limits only change which pictures fail."""
        recipe: dict[str, str | int | float | bool] = {"decoding": 1, "exif": self.exif, "alpha": self.alpha}
        return recipe | {"draft": float(self.draft)} if self.draft else recipe


@dataclass(frozen=True, eq=False)
class Picture:
    """What was decoded of a file.

    Attributes:
        image: RGB, upright; at a smaller scale if it was drafted.
        size: width and height of the upright picture at its own scale.
        box: where the picture lies in ``image``, whose last pixels at a smaller scale may be of it in part only: left,
            top, right, bottom. None is all of it.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float] | None = None


def decode_image(source: bytes | str | os.PathLike[str], options: DecodeOptions | None = None) -> Image.Image:
    """The picture in a file, or in bytes; never drafted.

    Of animations the first frame counts. Palettes, CMYK (also Adobe's inverted one), YCbCr, LAB, 1 bit and grey become
    RGB as Pillow does it; transparency is laid on ``options.alpha``. 16 bits are scaled by 1/257. Wider samples are
    read by the smallest range that holds them all: 0..1 (floats), 0..255, 0..65535 (integers); beyond these they are
    stretched from their least to their greatest. Colour profiles are not applied, as in CLIP's own preprocessing.

    Memory: the decoded picture, and a second copy of it while it is converted.

    Args:
        source: a path, or a file's contents.
        options: limits and conversions.

    Raises:
        ItemError: whatever is wrong with the picture, running out of memory included. Nothing else escapes but
            exceptions that are no `Exception`, such as KeyboardInterrupt.
    """
    return decode_picture(source, options or DecodeOptions(), None).image


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
    try:
        with _open_source(source) as file, _quiet_pillow:
            return _decode(file, options, image_size)
    except ItemError:
        raise
    except MemoryError as error:
        raise ItemError("no-memory", "decoding it needs more memory than there is") from error
    except Image.DecompressionBombError as error:
        raise ItemError("too-large", str(error)) from error
    except Exception as error:
        detail = f"{error}" or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            raise ItemError("unreadable", error.strerror or detail) from error
        cut = isinstance(error, EOFError) or any(word in detail.lower() for word in ("truncated", "unexpected end"))
        raise ItemError("truncated" if cut else "broken", detail) from error


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
    head = file.read(16)
    file.seek(0)
    try:
        image = _open_header(file, options.max_megapixels)
    except UnidentifiedImageError as error:
        if head.startswith(_MAGICS) or head[4:12] in (b"ftypavif", b"ftypavis"):
            raise ItemError("broken", "it begins like a picture, but its header is damaged or cut off") from error
        hint = "HEIF or a video; convert it to JPEG" if head[4:8] == b"ftyp" else "it is no picture of a known format"
        raise ItemError("unknown-format", hint) from error
    with image:
        width, height = image.size
        megapixels = width * height / 1e6
        if megapixels > options.max_megapixels:
            raise ItemError(
                "too-large",
                f"{width} x {height} are {megapixels:.0f} megapixels, {options.max_megapixels:g} are allowed",
            )
        if max(width, height) > options.max_aspect * min(width, height):
            raise ItemError("too-narrow", f"{width} x {height}: sides may differ {options.max_aspect:g} times at most")
        drafted = None
        if options.draft and image_size and image.format in ("JPEG", "MPO"):
            side = math.ceil(options.draft * image_size)
            drafted = image.draft(None, (side, side))  # the smallest of its scales at which no side is shorter
        image.load()
        rgb = to_rgb(image, options.alpha)
        turn = _TURNS.get(_orientation(image)) if options.exif else None
        turned = rgb if turn is None else rgb.transpose(turn)
        if drafted is None or rgb.size == (width, height):
            return Picture(turned, turned.size)
        return _drafted(turned, (width, height), drafted[1][2:], turn)


def _drafted(
    image: Image.Image, size: tuple[int, int], extent: tuple[float, float], turn: Image.Transpose | None
) -> Picture:
    """A picture that was drafted and then turned; ``size`` is that of the file, ``extent`` the same when drafted."""
    goes_left, goes_up, swaps = _EDGES[turn]
    (width, height), (right, bottom) = (size[::-1], extent[::-1]) if swaps else (size, extent)
    # Before it was turned, what is too much lay at the right and the lower edge.
    left = image.width - right if goes_left else 0.0
    top = image.height - bottom if goes_up else 0.0
    return Picture(image, (width, height), (left, top, left + right, top + bottom))


_bomb_limit_lock = threading.Lock()


def _open_header(file: IO[bytes], max_megapixels: float) -> Image.Image:
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or max_megapixels * 1e6 <= 2 * limit:
        return Image.open(file, formats=formats)
    # Pillow refuses by a limit of its own, twice MAX_IMAGE_PIXELS; where ours is higher, it yields for a moment.
    with _bomb_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF says nothing about the pixels, which are fine
        return 1


class _QuietPillow:
    """Silences Pillow's warnings while at least one thread decodes.

    `warnings.catch_warnings` alone is not safe with threads: those that leave in another order than they came would put
    the wrong filters back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_quiet_pillow = _QuietPillow()
