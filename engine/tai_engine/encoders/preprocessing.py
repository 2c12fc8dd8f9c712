"""A decoded picture to the pixels that a model was trained on.

Shape legend: N images, C = 3 channels, H = W = S pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, Normalize, PILToTensor, ToTensor

from tai_engine.errors import UserError, unknown_choice

_CHOICES = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "longest", "squash")}


class Preprocess:
    """Resize and crop a PIL picture exactly as open_clip does, to uint8; the device normalises.

    Picklable, so that worker processes can run it; a picture crosses to the device in a quarter of the bytes of fp32.

    Attributes:
        recipe: all options, as they go into the recipe key.

    Raises:
        UserError: for options that open_clip does not know.
    """

    def __init__(self, options: Mapping[str, Any], image_size: int) -> None:
        known = {key: options[key] for key in PreprocessCfg.__dataclass_fields__ if options.get(key) is not None}
        config = PreprocessCfg(**(known | {"size": image_size, "mode": "RGB"}))
        for key, allowed in _CHOICES.items():
            if getattr(config, key) not in allowed:
                raise unknown_choice(f"{key} in the model's preprocessing", str(getattr(config, key)), allowed)
        self.recipe: dict[str, Any] = {
            "image_size": image_size,
            "resize_mode": config.resize_mode,
            "interpolation": config.interpolation,
            "fill_color": config.fill_color,
            "mean": _three("mean", config.mean),
            "std": _three("std", config.std),
        }
        steps = image_transform_v2(config, is_train=False).transforms
        # Its last two steps turn the picture into normalised floats.
        self._geometry = Compose([step for step in steps if not isinstance(step, (ToTensor, Normalize))])
        self._to_tensor = PILToTensor()

    def __call__(self, image: Image.Image) -> Tensor:
        """[3, S, S] uint8 of one picture."""
        pixels: Tensor = self._to_tensor(self._geometry(image))
        return pixels

    def normalise(self, pixels_NCHW: Tensor) -> Tensor:
        """[N, 3, S, S] fp32 on the same device, by the mean and standard deviation that the model was trained with."""
        mean, std = (
            torch.tensor(self.recipe[key], device=pixels_NCHW.device).view(1, 3, 1, 1) for key in ("mean", "std")
        )
        return (pixels_NCHW.float() / 255 - mean) / std


def _three(name: str, value: Any) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3 or not all(isinstance(v, (int, float)) for v in values):
        raise UserError(f"{name} in the model's preprocessing is {value!r}; it must be one number or three.")
    return [float(v) for v in values]
