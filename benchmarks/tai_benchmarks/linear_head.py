"""A linear head on sentences: class vectors that are learned themselves, without a text tower.

``published`` is CoMC's recipe (ICML 2024): a random head on disturbed sentences, ranking loss of margin 1, Adam at
1e-3. ``cosine`` starts from given class vectors and keeps them unit rows, with the rate and the noise that the embedded
model's prompts are tuned with, which held-out photographs chose.

Shape legend: M items, C classes, D embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.prompts.losses import ranking_loss

RECIPES = ("published", "cosine")
EPOCHS, BATCH = 20, 512
_SCALE = 4.0


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
    is_cosine = recipe == "cosine"
    generator = torch.Generator().manual_seed(seed)
    items = torch.cat([items_MD, start_CD])
    labels = torch.cat([labels_MC, torch.eye(len(start_CD), dtype=torch.bool)])
    # 0.1·N(0, I) has the mean length 0.1·√D; length 1 is what the embedded model's prompts are tuned with.
    deviation = 1 / math.sqrt(items.shape[1]) if is_cosine else 0.1
    drawn = torch.randn(start_CD.shape, generator=generator) * 0.02
    head = (start_CD if is_cosine else drawn).clone().requires_grad_()
    rate = 1e-2 if is_cosine else 1e-3
    optimizer = torch.optim.SGD([head], lr=rate, momentum=0.9) if is_cosine else torch.optim.Adam([head], lr=rate)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS)) if epoch else 1e-5
        for chosen in torch.randperm(len(items), generator=generator).split(BATCH):
            noise = torch.randn(len(chosen), items.shape[1], generator=generator) * deviation
            rows = normalize(items[chosen] + noise, dim=1)
            scores = _SCALE * rows @ normalize(head, dim=1).T if is_cosine else rows @ head.T
            optimizer.zero_grad()
            ranking_loss(scores, labels[chosen]).backward()
            optimizer.step()
    return normalize(head.detach(), dim=1)
