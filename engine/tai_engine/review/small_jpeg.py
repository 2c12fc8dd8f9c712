"""A decoded picture to a JPEG file that fits a square; what processes that decode load is Pillow and NumPy alone."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tai_engine.decoding.pixels import Box

_QUALITIES = (82, 60, 30, 5)
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class SmallJpeg:
    """Scales a picture down until it fits a square, and encodes it; never scales up. A `ToPixels` of decoding pools.

    Such pools hand over arrays of one shape, so the file lies in one: its length in 4 bytes, then its bytes, then
    nothing. A JPEG of S x S pixels is several times smaller than these pixels.

    Attributes:
        side: S, pixels; 64 or more.
    """

    side: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, S, S), of what a call returns."""
        return (3, self.side, self.side)

    def __call__(self, image: Image.Image, of_size: tuple[int, int], box: Box | None) -> np.ndarray:
        """uint8 of that shape with the file in it; see `file_in`."""
        target = fitting(of_size, self.side)
        if target != image.size or box is not None:
            image = image.resize(target, Image.Resampling.BICUBIC, box)
        out = np.zeros(self.shape, np.uint8)
        room = out.size - _LENGTH_BYTES
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= room:
                break
        data = buffer.getvalue()
        flat = out.reshape(-1)
        flat[:_LENGTH_BYTES] = np.frombuffer(len(data).to_bytes(_LENGTH_BYTES, "little"), np.uint8)
        flat[_LENGTH_BYTES : _LENGTH_BYTES + len(data)] = np.frombuffer(data, np.uint8)
        return out


def file_in(pixels: np.ndarray) -> bytes:
    """The file that `SmallJpeg` put into an array."""
    flat = pixels.reshape(-1)
    length = int.from_bytes(flat[:_LENGTH_BYTES].tobytes(), "little")
    return flat[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes()


def fitting(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The width and height of a picture of ``size`` once it fits a square of ``side`` pixels."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
