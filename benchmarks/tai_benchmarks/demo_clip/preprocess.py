"""CLIP's normalisation of pictures that already have the model's size."""

from __future__ import annotations

import torch
from torch import Tensor

from tai_benchmarks.demo_clip.model import MEAN, STD


def normalised(images_NHW3: Tensor) -> Tensor:
    """The uint8 pictures [N, H, W, 3] as float32 [N, 3, H, W] with CLIP's mean and deviation subtracted and divided.

    The result lies channels-last in memory, which convolutions on a CPU prefer.
    """
    mean, deviation = torch.tensor(MEAN), torch.tensor(STD)
    return ((images_NHW3.float() / 255 - mean) / deviation).permute(0, 3, 1, 2)
