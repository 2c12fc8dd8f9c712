"""Vectors of every location of timm's image towers: the tower's own head, applied to one location at a time.

A head that averages locations and is affine gives the same either way round, so the coarse vector is the mean of the
fine ones. A head with a LayerNorm behind its average (ConvNeXt) is not affine; each location through it is FC-CLIP's
recipe (Yu et al., NeurIPS 2023), and the coarse vector stays the model's own.

Shape legend: N images, L locations, C channels, D embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.timm_model import TimmModel
from timm.layers import NormMlpClassifierHead
from torch import Tensor

_NOT_A_MAP = "its image tower gives no map or row of locations"
_TOLERANCE = 1e-3
_PROBE_SEED = 0


def timm_vectors(visual: TimmModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Coarse [N, D] as the model has it, and fine [N, L, D], in rows of the map from the upper left."""
    features = visual.trunk.forward_features(pixels)
    coarse: Tensor = visual.head(visual.trunk.forward_head(features))
    singles = _single_locations(visual.trunk, features)
    fine: Tensor = visual.head(visual.trunk.forward_head(singles))
    return coarse, fine.unflatten(0, (len(pixels), -1))


def no_timm_recipe(visual: TimmModel, image_size: int) -> str:
    """Why a timm tower has no vectors of locations; empty if it has. One small picture is computed to see it."""
    parameter = next(visual.parameters())
    generator = torch.Generator().manual_seed(_PROBE_SEED)
    pixels = torch.rand(1, 3, image_size, image_size, generator=generator).to(parameter.device, parameter.dtype)
    try:
        with torch.no_grad():
            coarse, fine = timm_vectors(visual, pixels)
    except Exception:  # heads that pool by attention refuse a single location in many ways, asserts among them
        return "its image tower has a head that takes no single location"
    if isinstance(getattr(visual.trunk, "head", None), NormMlpClassifierHead):
        return ""
    mean = fine.mean(dim=1)
    if bool((mean - coarse).norm() <= _TOLERANCE * coarse.norm()):
        return ""
    return "its image tower pools otherwise than by the mean of its locations"


def rows_per_picture(visual: TimmModel, image_size: int) -> int:
    """L, which is ``ceil(image_size / stride)²`` for a tower whose convolutions pad as most do."""
    parameter = next(visual.parameters())
    pixels = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        return len(_single_locations(visual.trunk, visual.trunk.forward_features(pixels)))


def _single_locations(trunk: Any, features: Tensor) -> Tensor:
    """Each location as if it were the whole of a picture: [N·L, C, 1, 1], [N·L, 1, 1, C] or [N·L, tokens, C].

    Raises:
        ValueError: for features of another shape.
    """
    width = int(trunk.num_features)
    if features.ndim == 4 and features.shape[1] == width:
        return features.flatten(2).transpose(1, 2).reshape(-1, width, 1, 1)
    if features.ndim == 4 and features.shape[3] == width:
        return features.reshape(-1, 1, 1, width)
    if features.ndim == 3 and features.shape[2] == width:
        prefix = int(getattr(trunk, "num_prefix_tokens", 0))
        patches = features[:, prefix:].reshape(-1, 1, width)
        # Heads that leave the class token out want one to leave out.
        return torch.cat([patches.new_zeros(len(patches), prefix, width), patches], dim=1)
    raise ValueError(_NOT_A_MAP)
