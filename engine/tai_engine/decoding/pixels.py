"""Resize and crop of a decoded picture to the square of bytes that a model takes, exactly as open_clip does it.

It needs Pillow and NumPy alone, so that processes which only decode do not load a deep learning library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps

from tai_engine.errors import unknown_choice

RESIZE_MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class SquarePixels:
    """A picture to a square, as open_clip's ``image_transform_v2`` does before it makes floats of it.

    Attributes:
        size: S, pixels a side.
        resize_mode: ``"shortest"`` scales the short side to S and cuts off what the long one has too much;
            ``"longest"`` scales the long side to S and fills up beside the short one; ``"squash"`` scales both.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        fill_color: of what is filled up, 0 to 255 for all channels.

    Raises:
        UserError: for an unknown mode or interpolation.
    """

    size: int
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill_color: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("resize_mode", RESIZE_MODES), ("interpolation", tuple(INTERPOLATIONS))):
            if getattr(self, name) not in allowed:
                raise unknown_choice(f"{name} in the model's preprocessing", str(getattr(self, name)), allowed)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, S, S), of what a call returns."""
        return (3, self.size, self.size)

    def __call__(
        self, image: Image.Image, of_size: tuple[int, int] | None = None, box: Box | None = None
    ) -> np.ndarray:
        """[3, S, S] uint8 of one picture; contiguous.

        Args:
            image: the picture.
            of_size: width and height of the picture, where ``image`` is a smaller version of it.
            box: where the picture lies in that version, which may have a part of a pixel too much at its edges.
        """
        target = self._resized_size(*(of_size or image.size))
        if target != image.size:
            image = image.resize(target, INTERPOLATIONS[self.interpolation], box)
        if image.size != (self.size, self.size):
            image = self._centre(image)
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after scaling, before cutting and filling up."""
        size = self.size
        if self.resize_mode == "squash":
            return size, size
        if self.resize_mode == "longest":
            ratio = max(width / size, height / size)
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        # torchvision's rule: the long side is rounded down.
        if width <= height:
            return size, int(size * height / width)
        return int(size * width / height), size

    def _centre(self, image: Image.Image) -> Image.Image:
        """The middle of a picture, filled up where it is too small."""
        size = self.size
        missing_x, missing_y = max(0, size - image.width), max(0, size - image.height)
        if missing_x or missing_y:
            # Of an odd number the larger half goes right and below.
            border = (missing_x // 2, missing_y // 2, (missing_x + 1) // 2, (missing_y + 1) // 2)
            image = ImageOps.expand(image, border, fill=self._fill(image))
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        return image.crop((left, top, left + size, top + size))

    def _fill(self, image: Image.Image) -> int | tuple[int, ...]:
        bands = len(image.getbands())
        return self.fill_color if bands == 1 else (self.fill_color,) * bands
