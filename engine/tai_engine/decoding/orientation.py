"""Pictures are turned upright, as their EXIF says."""

from __future__ import annotations

from PIL import Image

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


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns a picture upright; None if it is, or its EXIF is damaged, which says nothing about the pixels."""
    try:
        return _TURNS.get(int(image.getexif().get(_ORIENTATION_TAG, 1)))
    except Exception:  # of whatever kind
        return None


def is_quarter(turn: Image.Transpose) -> bool:
    """Whether a turn exchanges width and height."""
    return _EDGES[turn][2]


def box_of_draft(
    image: Image.Image, size: tuple[int, int], extent: tuple[float, float], turn: Image.Transpose | None
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """Upright size, and where the picture lies (left, top, right, bottom), of one that was drafted and then turned.

    Args:
        image: as it was turned.
        size: width and height in the file.
        extent: the same when drafted.
        turn: what was done to it.
    """
    goes_left, goes_up, swaps = _EDGES[turn]
    (width, height), (right, bottom) = (size[::-1], extent[::-1]) if swaps else (size, extent)
    # Before it was turned, what is too much lay at the right and the lower edge.
    left = image.width - right if goes_left else 0.0
    top = image.height - bottom if goes_up else 0.0
    return (width, height), (left, top, left + right, top + bottom)
