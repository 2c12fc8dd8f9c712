"""Pillow as it is wanted here: without warnings and without a limit of its own, and with the plugins that there are."""

from __future__ import annotations

import importlib
import threading
import warnings
from typing import IO

from PIL import Image

from tai_engine.picture_kinds import HEIF, JPEG_XL, KINDS, PictureKind

_FORMATS = tuple(name for kind in KINDS if not kind.package for name in kind.formats)
"""The others that Pillow knows are documents, run other programs (EPS) or guess."""


def open_picture(file: IO[bytes], kind: PictureKind | None) -> Image.Image:
    """The picture in a file, its header read.

    Args:
        file: at its beginning.
        kind: what it begins like; None tries all that need no package.

    Raises:
        UnidentifiedImageError: if it is no picture, or one of an unknown kind. Pillow raises other things too.
        ImportError: if the package that reads this kind is not installed.
    """
    Image.init()
    if kind is HEIF and not kind.is_readable:
        return Image.open(file, formats=["AVIF"])  # some have names of both
    if kind is HEIF:
        importlib.import_module(HEIF.module).register_heif_opener()
    elif kind is JPEG_XL:
        importlib.import_module(JPEG_XL.module)
    return Image.open(file, formats=[name for name in (kind.formats if kind else _FORMATS) if name in Image.OPEN])


class _PillowInUse:
    """Silences Pillow's warnings, and lifts its limit of pixels, while at least one thread decodes.

    What is allowed is looked at here, with a limit that users know of. `warnings.catch_warnings` alone is not safe with
    threads: those that leave in another order than they came would put the wrong filters back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = self._limit


pillow_in_use = _PillowInUse()
