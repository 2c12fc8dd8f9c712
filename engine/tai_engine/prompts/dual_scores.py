"""Scores of a pair of prompts per class: DualCoOp's, one for its presence and one for its absence.

Sun et al., NeurIPS 2022, arXiv 2206.09541; apart from what learns them, so that tagging needs no text tower.

Shape legend: N items, T fine rows of all items together, C classes, D embedding size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
