"""Cameras' raw files, by LibRaw."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

from tai_engine.errors import ItemError
from tai_engine.picture_kinds import EXTRA, RAW


def develop(data: bytes, check_size: Callable[[int, int], None]) -> Image.Image:
    """The picture of a raw file, upright, with the camera's white balance and 8 bits.

    Memory: about 20 bytes a pixel.

    Args:
        data: the file.
        check_size: called with width and height before the picture is made.

    Raises:
        ItemError: if there is no LibRaw here, the file is damaged, or of a kind that LibRaw does not know.
    """
    try:
        import rawpy
    except ImportError as error:
        raise ItemError("unsupported", f"a camera's raw file ({RAW.package} reads them: {EXTRA})") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            check_size(raw.sizes.width, raw.sizes.height)
            return Image.fromarray(raw.postprocess(use_camera_wb=True))
    except rawpy.LibRawFileUnsupportedError as error:
        raise ItemError("unsupported", "a camera's raw file of a kind that LibRaw does not know") from error
    except rawpy.LibRawError as error:
        text = error.args[0] if error.args else error
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        raise ItemError("broken", words) from error
