"""Two recipes of a linear head on sentences: class vectors that are learned themselves, without a text tower.

``published`` is CoMC's (ICML 2024): a random head on disturbed sentences, ranking loss of margin 1, Adam at 1e-3.
``cosine`` is the engine's (`tai tag --sentences ... --linear-head`).

Shape legend: M items, C classes, D embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.label_free.linear_head import learn_head
from tai_engine.prompts.losses import ranking_loss

RECIPES = ("published", "cosine")
_EPOCHS, _BATCH, _RATE = 20, 512, 1e-3


def linear_head(start_CD: Tensor, items_MD: Tensor, labels_MC: Tensor, recipe: str, seed: int) -> Tensor:
    """Class vectors [C, D], unit rows.

    Args:
        start_CD: unit class vectors; each is a training item of its class too.
        items_MD: unit rows to learn from: sentences, or pictures.
        labels_MC: [M, C] bool.
        recipe: one of `RECIPES`.
        seed: of the start, the order and the noise.

    Raises:
        ValueError: for an unknown recipe.
    """
    if recipe not in RECIPES:
        raise ValueError(f"the recipe is {recipe!r}, expected one of {RECIPES}")
    if recipe == "cosine":
        return learn_head(start_CD, items_MD, labels_MC, seed)
    generator = torch.Generator().manual_seed(seed)
    items = torch.cat([items_MD, start_CD])
    labels = torch.cat([labels_MC, torch.eye(len(start_CD), dtype=torch.bool)])
    head = (torch.randn(start_CD.shape, generator=generator) * 0.02).requires_grad_()
    optimizer = torch.optim.Adam([head], lr=_RATE)
    for epoch in range(_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * epoch / _EPOCHS)) if epoch else 1e-5
        for chosen in torch.randperm(len(items), generator=generator).split(_BATCH):
            noise = torch.randn(len(chosen), items.shape[1], generator=generator) * 0.1
            optimizer.zero_grad()
            ranking_loss(normalize(items[chosen] + noise, dim=1) @ head.T, labels[chosen]).backward()
            optimizer.step()
    return normalize(head.detach(), dim=1)
