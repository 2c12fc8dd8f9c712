"""How like each part of a picture is to a tag.

Shape legend: K tags, L patches of a picture, D embedding size, h x w the grid of patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tai_engine.errors import UserError, unknown_choice
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.spaces import require_same_space
from tai_kernels.scoring import ops

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom as fractions of a picture's width and height."""


def similarity_grid(item: FeatureBatch, prompts: PromptSet, tags: Sequence[str]) -> Tensor:
    """Cosine of every patch of a picture with some tags: [K, h, w] fp32.

    These are the similarities that the fine score is pooled from (Guo et al., arXiv 2211.12739).

    Args:
        item: features of one picture, as `FeatureStore.read_ids` gives them.
        prompts: class vectors of the same space.
        tags: names of K classes of ``prompts``.

    Raises:
        UserError: for another space, an unknown tag, or features without patches.
        ValueError: for more than one item, or patches that are no square grid (those of a sentence, perhaps).
    """
    require_same_space(item, prompts, "the features", "the prompt set")
    if len(item) != 1:
        raise ValueError(f"there are {len(item)} items, expected one")
    patches = item.fine.shape[0]
    if patches == 0:
        raise UserError(
            f"There are no patch features of {item.ids[0]!r}, only one vector for the whole picture: a heatmap needs a "
            "store that was made without --coarse-only."
        )
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches are no square grid")
    columns = {name: column for column, name in enumerate(prompts.class_names)}
    for tag in tags:
        if tag not in columns:
            raise unknown_choice("tag", tag, prompts.class_names)
    chosen = torch.tensor([columns[tag] for tag in tags], dtype=torch.int64)
    similarities_LK = ops.patch_similarities(
        item.fine, item.offsets, prompts.local_vectors, chosen, fine_scales=item.fine_scales
    )
    return similarities_LK.T.reshape(len(tags), side, side).contiguous()


def grid_box(size: tuple[int, int], recipe: Mapping[str, Any]) -> Box:
    """Where the grid lies on a picture, to within a pixel of the model's input.

    A model that crops its input does not see all of a long picture; one that fills it up sees more than the picture.

    Args:
        size: width and height of the picture.
        recipe: of the store, for its ``resize_mode`` (see `tai_engine.decoding.pixels.SquarePixels`).
    """
    width, height = size
    mode = recipe.get("resize_mode", "shortest")
    if mode == "squash":
        return 0.0, 0.0, 1.0, 1.0
    side = max(size) if mode == "longest" else min(size)
    across, down = side / width / 2, side / height / 2
    return 0.5 - across, 0.5 - down, 0.5 + across, 0.5 + down
