"""DualCoOp's pair of prompts per class: one for its presence, one for its absence.

Sun et al., NeurIPS 2022, arXiv 2206.09541; the form in which TaI-DPT (arXiv 2211.12739) is combined with prompts
learned on partly labelled images.

Shape legend: N items, T fine rows of all items together, C classes, K contexts, W width of the text tower, D embedding
size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tai_engine.prompts.learner import ContextLearner, DualVectors
from tai_engine.prompts.tower import PromptTower

POSITIVE, NEGATIVE = "positive_contexts", "negative_contexts"
START = 3.0
"""Of both temperatures, as published."""


class DualScores(NamedTuple):
    """Logits of presence [N, C] each: from the coarse vectors, and from the fine ones."""

    coarse: Tensor
    fine: Tensor


def dual_scores(
    coarse_ND: Tensor,
    fine_TD: Tensor,
    offsets: Tensor,
    positive_CD: Tensor,
    negative_CD: Tensor,
    temperature: Tensor | float,
    spatial_temperature: Tensor | float,
) -> DualScores:
    """How much more an item looks like a class's positive prompt than like its negative one.

    ``w = softmax over l of (exp(spatial_temperature)·cos(P, T⁺))``,
    ``fine = exp(temperature)·Σ w·(cos(P, T⁺) − cos(P, T⁻))``: rows are chosen by the positive prompt alone. The coarse
    logit is the same difference for the coarse vector. An item without rows has the fine logit 0. Memory: a few [T, C].

    Args:
        coarse_ND: [N, D] unit rows.
        fine_TD: [T, D] unit rows.
        offsets: [N + 1] int64.
        positive_CD: [C, D] unit rows.
        negative_CD: [C, D] unit rows.
        temperature: natural logarithm of the factor on cosines.
        spatial_temperature: natural logarithm of the softmax's factor.
    """
    scale = torch.as_tensor(temperature).to(coarse_ND).exp()
    sharpness = torch.as_tensor(spatial_temperature).to(coarse_ND).exp()
    n_items, n_classes = len(coarse_ND), len(positive_CD)
    coarse_NC = scale * (coarse_ND @ (positive_CD - negative_CD).T)
    item_T = torch.repeat_interleave(torch.arange(n_items, device=fine_TD.device), offsets.diff().to(fine_TD.device))
    positive_TC = fine_TD @ positive_CD.T
    logits_TC = sharpness * positive_TC
    index_TC = item_T[:, None].expand(-1, n_classes)
    # The largest of each item is only taken out for the exponent's sake: it cancels, and so does its gradient.
    largest_NC = logits_TC.detach().new_full((n_items, n_classes), -torch.inf)
    largest_NC = largest_NC.scatter_reduce(0, index_TC, logits_TC.detach(), "amax")
    weights_TC = (logits_TC - largest_NC[item_T]).exp()
    zeros_NC = torch.zeros_like(coarse_NC)
    totals_NC = zeros_NC.index_add(0, item_T, weights_TC)
    difference_TC = positive_TC - fine_TD @ negative_CD.T
    sums_NC = zeros_NC.index_add(0, item_T, weights_TC * difference_TC)
    return DualScores(coarse_NC, scale * sums_NC / totals_NC.clamp(min=torch.finfo(totals_NC.dtype).tiny))


class DualPromptLearner(ContextLearner):
    """Positive and negative contexts and the two learned temperatures.

    Attributes:
        positive_contexts: [K, W], or [C, K, W] for class-specific ones (DualCoOp's default); fp32.
        negative_contexts: the same.
        temperature: scalar, starts at 3.0.
        spatial_temperature: scalar, starts at 3.0.
    """

    context_names = (POSITIVE, NEGATIVE)
    positive_contexts: nn.Parameter
    negative_contexts: nn.Parameter

    def __init__(self, tower: PromptTower, *, seed: int = 1, words: Tensor | None = None) -> None:
        """As `ContextLearner`: positive contexts are drawn first."""
        super().__init__(tower, seed=seed, words=words)
        self.temperature = nn.Parameter(torch.tensor(START, device=tower.device))
        self.spatial_temperature = nn.Parameter(torch.tensor(START, device=tower.device))

    def class_vectors(self) -> DualVectors:
        """Vectors of presence, for coarse and for fine vectors the same, vectors of absence, and both temperatures."""
        positive_CD = self._unit_vectors(POSITIVE)
        return DualVectors(
            positive_CD, positive_CD, self._unit_vectors(NEGATIVE), self.temperature, self.spatial_temperature
        )

    forward = class_vectors
