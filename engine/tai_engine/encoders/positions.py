"""Image towers at another input size: positional embeddings interpolated on their grid.

Shape legend: L positions of the grid (one more with the class or mean token in front), E width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from tai_engine.encoders.model_config import MAX_IMAGE_SIZE
from tai_engine.errors import UserError, reason_of

RESNET_STRIDE = 32


def interpolate_positions(positions_LE: Tensor, side: int) -> Tensor:
    """A square grid of positional embeddings at another size: bicubic with antialiasing, as open_clip resizes ViTs.

    Args:
        positions_LE: [1 + old² , E], the embedding of the class (or mean) token first; that one stays as it is.
        side: the new grid is side × side.

    Returns:
        [1 + side², E].
    """
    old_side = math.isqrt(positions_LE.shape[0] - 1)
    if old_side == side:
        return positions_LE
    first, grid = positions_LE[:1], positions_LE[1:]
    grid = grid.reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, grid.permute(0, 2, 3, 1).reshape(side * side, -1)])


def resize_image_tower(visual: Any, image_size: int) -> None:
    """Make an image tower take pictures of ``image_size`` pixels, in place.

    Raises:
        UserError: for a size that the tower cannot take.
    """
    if not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise UserError(f"--image-size is {image_size}; give a size from 1 to {MAX_IMAGE_SIZE:,} pixels.")
    if isinstance(visual, ModifiedResNet):
        side = _side(image_size, RESNET_STRIDE, "ResNet")
        pool = visual.attnpool
        pool.positional_embedding = _frozen(interpolate_positions(pool.positional_embedding, side))
        visual.image_size = image_size
    elif isinstance(visual, VisionTransformer):
        cell = int(visual.patch_size[0])
        side = _side(image_size, cell, f"ViT with patches of {cell} pixels")
        visual.positional_embedding = _frozen(interpolate_positions(visual.positional_embedding, side))
        visual.grid_size = (side, side)
        visual.image_size = (image_size, image_size)
    elif _size_of(visual) != image_size:
        _resize_other(visual, image_size)


def _resize_other(visual: Any, image_size: int) -> None:
    """Let timm resize its own tower, and see with one blank picture whether it works."""
    try:
        if isinstance(visual, TimmModel) and hasattr(visual.trunk, "set_input_size"):
            visual.trunk.set_input_size((image_size, image_size))
        with torch.no_grad():
            visual(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:  # timm's towers refuse a size in many ways, asserts among them
        raise UserError(
            f"This model's image tower cannot take pictures of {image_size} pixels ({reason_of(error)}); "
            f"leave --image-size at {_size_of(visual)}."
        ) from error
    visual.image_size = (image_size, image_size)


def _size_of(visual: Any) -> int:
    size = visual.image_size
    return int(size[0] if isinstance(size, (tuple, list)) else size)


def _side(image_size: int, cell: int, tower: str) -> int:
    if image_size % cell:
        lower = image_size // cell * cell
        near = f"{lower} or {lower + cell}" if lower else f"{cell}"
        raise UserError(f"--image-size is {image_size}, but a {tower} takes multiples of {cell}; use {near}.")
    return image_size // cell


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
