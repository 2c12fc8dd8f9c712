"""A decoded picture to the pixels that a model was trained on.

Shape legend: N images, C = 3 channels, H = W = S pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from torch import Tensor

from tai_engine.decoding.pixels import SquarePixels


class Preprocess:
    """Resize and crop a PIL picture exactly as open_clip does, to uint8; the device normalises.

    A picture crosses to the device in a quarter of the bytes of fp32.

    Attributes:
        recipe: all options, as they go into the recipe key.
        pixels: resize and crop alone, for processes that decode: picklable, and without torch.

    Raises:
        UserError: for a resize mode or an interpolation that there is not.
    """

    def __init__(self, options: Mapping[str, Any], image_size: int) -> None:
        known = {key: options[key] for key in PreprocessCfg.__dataclass_fields__ if options.get(key) is not None}
        config = PreprocessCfg(**(known | {"size": image_size, "mode": "RGB"}))
        self.pixels = SquarePixels(image_size, config.resize_mode, config.interpolation, config.fill_color)
        self.recipe: dict[str, Any] = {
            "image_size": image_size,
            "resize_mode": config.resize_mode,
            "interpolation": config.interpolation,
            "fill_color": config.fill_color,
            "mean": _three(config.mean),
            "std": _three(config.std),
        }

    def __call__(self, image: Image.Image) -> Tensor:
        """[3, S, S] uint8 of one picture."""
        return torch.from_numpy(self.pixels(image))

    def normalise(self, pixels_NCHW: Tensor) -> Tensor:
        """[N, 3, S, S] fp32 on the same device, by the mean and standard deviation that the model was trained with."""
        mean, std = (
            torch.tensor(self.recipe[key], device=pixels_NCHW.device).view(1, 3, 1, 1) for key in ("mean", "std")
        )
        return (pixels_NCHW.float() / 255 - mean) / std


def _three(value: Any) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    return [float(v) for v in values]
