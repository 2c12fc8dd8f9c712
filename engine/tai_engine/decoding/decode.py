"""A file or bytes in, an upright RGB picture out, or one exception that says why not."""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from tai_engine.errors import ItemError, UserError

# What a picture can fail with. The words are stable: ledgers are counted by them.
REASONS = {
    "missing": "there is no such file",
    "not-a-file": "a folder, a pipe or another thing that is no file",
    "no-permission": "the file may not be read",
    "unreadable": "the device or file system reports an error",
    "empty": "the file has no bytes",
    "unknown-format": "no picture, or of a format that cannot be read here",
    "truncated": "the file ends too early",
    "broken": "the contents are damaged",
    "too-large": "more pixels or bytes than allowed",
    "too-narrow": "one side is too many times the other",
    "no-memory": "not enough memory to decode it",
    "crashed": "decoding it ended the process that did it",
    "timeout": "decoding it took longer than allowed",
}

# Formats of photos and drawings. The others that Pillow knows are documents, run other programs (EPS) or guess.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "ICO")
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_OPEN_ERRORS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ELOOP: "missing",
    errno.EISDIR: "not-a-file",
    errno.EACCES: "no-permission",
    errno.EPERM: "no-permission",
}
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


class DecodeError(ItemError):
    """A picture that cannot be had, for one of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"reason is {reason!r}, expected one of {', '.join(REASONS)}")
        super().__init__(reason, detail)


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
        DecodeError: whatever is wrong with the picture, running out of memory included. Nothing else escapes but
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
        DecodeError: as `decode_image`.
    """
    try:
        with _open_source(source) as file, _quiet_pillow:
            return _decode(file, options, image_size)
    except DecodeError:
        raise
    except MemoryError as error:
        raise DecodeError("no-memory", "decoding it needs more memory than there is") from error
    except Image.DecompressionBombError as error:
        raise DecodeError("too-large", str(error)) from error
    except Exception as error:
        detail = f"{error}" or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            raise DecodeError("unreadable", error.strerror or detail) from error
        cut = isinstance(error, EOFError) or any(word in detail.lower() for word in ("truncated", "unexpected end"))
        raise DecodeError("truncated" if cut else "broken", detail) from error


@contextmanager
def _open_source(source: bytes | str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        if not source:
            raise DecodeError("empty", "there are no bytes")
        yield io.BytesIO(source)
        return
    try:
        # Without O_NONBLOCK a pipe without a writer would stop the run for good.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        number = error.errno if isinstance(error, OSError) else errno.ENOENT
        reason = _OPEN_ERRORS.get(number or 0, "unreadable")
        raise DecodeError(reason, os.strerror(number) if number else str(error)) from error
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise DecodeError(
                "not-a-file", "it is a folder" if stat.S_ISDIR(state.st_mode) else "it is no regular file"
            )
        if state.st_size == 0:
            raise DecodeError("empty", "the file has no bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _decode(file: IO[bytes], options: DecodeOptions, image_size: int | None) -> Picture:
    head = file.read(16)
    file.seek(0)
    try:
        image = _open_header(file, options.max_megapixels)
    except UnidentifiedImageError as error:
        if head.startswith(_MAGICS) or head[4:12] in (b"ftypavif", b"ftypavis"):
            raise DecodeError("broken", "it begins like a picture, but its header is damaged or cut off") from error
        hint = "HEIF or a video; convert it to JPEG" if head[4:8] == b"ftyp" else "it is no picture of a known format"
        raise DecodeError("unknown-format", hint) from error
    with image:
        width, height = image.size
        megapixels = width * height / 1e6
        if megapixels > options.max_megapixels:
            raise DecodeError(
                "too-large",
                f"{width} x {height} are {megapixels:.0f} megapixels, {options.max_megapixels:g} are allowed",
            )
        if max(width, height) > options.max_aspect * min(width, height):
            raise DecodeError(
                "too-narrow", f"{width} x {height}: sides may differ {options.max_aspect:g} times at most"
            )
        drafted = None
        if options.draft and image_size and image.format in ("JPEG", "MPO"):
            side = math.ceil(options.draft * image_size)
            drafted = image.draft(None, (side, side))  # the smallest of its scales at which no side is shorter
        image.load()
        rgb = _to_rgb(image, options.alpha)
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


def _to_rgb(image: Image.Image, alpha: str) -> Image.Image:
    """A picture of its own in mode RGB, never the one that was given."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if image.mode == "LAB":
        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        turned = ImageCms.applyTransform(image, to_srgb)
        if turned is None:  # only for transforms in place
            raise DecodeError("broken", "its LAB colours cannot be converted")
        return turned
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    ground = Image.new("RGB", image.size, alpha)
    ground.paste(rgba, mask=rgba.getchannel("A"))
    return ground


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """[height, width] uint8 of a picture with wider samples, by the rule in `decode_image`."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    if image.mode == "F":
        tops: tuple[float, ...] = (1.0, 255.0)
    else:
        tops = (65535.0,) if image.format == "PPM" else (255.0, 65535.0)
    top = next((t for t in tops if low >= 0 and high <= t), None)
    shift, span = (low, high - low) if top is None else (0.0, top)
    scaled = np.where(finite, (values.astype(np.float64) - shift) * (255.0 / (span or 1.0)), 0.0)
    return np.rint(scaled).astype(np.uint8)


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
