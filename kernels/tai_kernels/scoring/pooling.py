"""How the similarities of an item's rows become one score: the pooling modes, their definition and their gradient.

This file is the contract: every kernel must equal it, and a new mode starts here.

Shape legend: N items, L rows per item (padded to the longest), C classes.
"""

import difflib
from typing import NamedTuple

import torch
from torch import Tensor

POOLING_MODES: tuple[str, ...] = ("softmax", "max")
"""``softmax``: Σ_l softmax_l(τ s)·s, the TaI-DPT fine score (arXiv 2211.12739). ``max``: its limit τ → ∞."""


class Pooled(NamedTuple):
    """Pooled similarities, and what the gradient needs beside them.

    Attributes:
        values: [N, C] pooled similarity.
        state: [N, C]; ``softmax``: log Σ exp(τ s), same dtype as ``values``; ``max``: int32 position, within the item,
            of the first row that reaches the maximum.
    """

    values: Tensor
    state: Tensor


def check_pooling(mode: str) -> str:
    """``mode``, if it is known.

    Raises:
        ValueError: for an unknown mode, listing the known ones.
    """
    if mode not in POOLING_MODES:
        close = difflib.get_close_matches(mode, POOLING_MODES, n=1)
        hint = f"did you mean {close[0]!r}? The modes are" if close else "choose one of"
        raise ValueError(f"Unknown pooling {mode!r}; {hint} {', '.join(map(repr, POOLING_MODES))}.")
    return mode


def pool(similarities_NLC: Tensor, mode: str, temperature: float, mask_NL: Tensor | None = None) -> Pooled:
    """Pool similarities over the rows of each item; differentiable by autograd.

    Args:
        similarities_NLC: [N, L, C] float, L >= 1; finite also where masked.
        mode: one of ``POOLING_MODES``.
        temperature: τ >= 0; not used by ``max``.
        mask_NL: [N, L] bool, True for rows that exist; every item needs one. None: all exist.

    Raises:
        ValueError: for an unknown mode.
    """
    check_pooling(mode)
    if mode == "softmax":
        logits_NLC = similarities_NLC * temperature
        if mask_NL is not None:
            logits_NLC = logits_NLC.masked_fill(~mask_NL[:, :, None], float("-inf"))
        # The maximum only keeps the exponentials in range: it cancels, and so does its gradient.
        largest_N1C = logits_NLC.amax(dim=1, keepdim=True).detach()
        exponential_NLC = (logits_NLC - largest_N1C).exp()
        total_NC = exponential_NLC.sum(dim=1)
        values_NC = (exponential_NLC * similarities_NLC).sum(dim=1) / total_NC
        return Pooled(values_NC, largest_N1C[:, 0, :] + total_NC.log())
    candidates_NLC = similarities_NLC
    if mask_NL is not None:
        candidates_NLC = similarities_NLC.masked_fill(~mask_NL[:, :, None], float("-inf"))
    # argmax takes the first of equal rows, so the gradient has one definite home.
    first_NC = candidates_NLC.argmax(dim=1)
    values_NC = similarities_NLC.gather(1, first_NC[:, None, :])[:, 0, :]
    return Pooled(values_NC, first_NC.to(torch.int32))


def pooling_gradient(
    similarities_NLC: Tensor, mode: str, temperature: float, pooled: Pooled, mask_NL: Tensor | None = None
) -> Tensor:
    """d values[n, c] / d similarities[n, l, c], recomputed from what ``pool`` returned: [N, L, C].

    softmax: p·(1 + τ(s − y)) with p = exp(τ s − log Σ exp(τ s)); max: 1 at the kept row, 0 elsewhere.

    Raises:
        ValueError: for an unknown mode.
    """
    check_pooling(mode)
    if mode == "softmax":
        centred_NLC = similarities_NLC - pooled.values[:, None, :]
        probability_NLC = (similarities_NLC * temperature - pooled.state[:, None, :]).exp()
        weight_NLC = probability_NLC * (1 + temperature * centred_NLC)
    else:
        positions_L = torch.arange(similarities_NLC.shape[1], device=similarities_NLC.device)
        weight_NLC = (positions_L[None, :, None] == pooled.state[:, None, :]).to(similarities_NLC.dtype)
    if mask_NL is not None:
        weight_NLC = weight_NLC.masked_fill(~mask_NL[:, :, None], 0.0)
    return weight_NLC
