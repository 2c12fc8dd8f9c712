"""Losses that compare the scores of every class with the classes an item holds.

Shape legend: N items, C classes.

All losses take scores and labels [N, C], compute in at least fp32 and return one number. Labels are 1 (present) and 0
(absent); the partial-label loss knows 1 (present), -1 (absent) and 0 (unknown). Definitions and constants follow
TaI-DPT (Guo et al., CVPR 2023, arXiv 2211.12739) and DualCoOp (Sun et al., NeurIPS 2022, arXiv 2206.09541).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Loss(Protocol):
    """Scores and labels [N, C] to one differentiable number."""

    def __call__(self, scores_NC: Tensor, labels_NC: Tensor, /) -> Tensor:
        """The loss of a batch."""
        ...


def _checked(scores_NC: Tensor, labels_NC: Tensor, allowed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Scores and labels in one float dtype of at least 32 bits."""
    if scores_NC.ndim != 2 or scores_NC.shape != labels_NC.shape or 0 in scores_NC.shape:
        raise ValueError(
            f"scores {tuple(scores_NC.shape)} and labels {tuple(labels_NC.shape)} must share one shape [N, C] with at "
            "least one item and one class"
        )
    if not scores_NC.is_floating_point():
        raise ValueError(f"scores have dtype {scores_NC.dtype}, expected a floating one")
    dtype = torch.promote_types(scores_NC.dtype, torch.float32)
    labels_NC = labels_NC.to(dtype)
    # On a GPU looking at the values would make the host wait at every step, so there the caller answers for them.
    if labels_NC.device.type == "cpu":
        known = torch.zeros_like(labels_NC, dtype=torch.bool)
        for value in allowed:
            known |= labels_NC == value
        if not bool(known.all()):
            raise ValueError(f"labels hold {float(labels_NC[~known][0])}, expected only {sorted(allowed)}")
    return scores_NC.to(dtype), labels_NC


def ranking_loss(scores_NC: Tensor, labels_NC: Tensor, *, margin: float = 1.0, scale: float = 1.0) -> Tensor:
    """Pairwise hinge: every present class should beat every absent one by the margin (TaI-DPT's default).

    ``1/N · Σ_n Σ_{i: y_ni=1} Σ_{j: y_nj=0} max(0, margin − scale·s_ni + scale·s_nj)``; a sum over pairs, not a mean. An
    item in which all or no classes are present has no pairs and adds 0. At the kink itself the gradient is 0.

    No pair is ever formed. With ``u_i = scale·s_i − margin`` and ``v_j = scale·s_j`` pair (i, j) counts where
    ``u_i < v_j``, so the sum is ``Σ_j b_j·v_j − Σ_i a_i·u_i``, where ``a_i`` is the number of absent classes above
    ``u_i`` and ``b_j`` the number of present classes whose ``u`` lies below ``v_j``: two sorts and two binary searches,
    O(N·C·log C) time and O(N·C) memory. The counts do not change within a linear piece, so the gradient is exact too.

    Args:
        scores_NC: [N, C] float.
        labels_NC: [N, C] of 1 (present) and 0 (absent).
        margin: in units of ``scale · score``.
        scale: above 0.

    Raises:
        ValueError: for shapes, dtypes or labels that do not fit, or a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale is {scale}, expected a number above 0")
    scores_NC, labels_NC = _checked(scores_NC, labels_NC, (0, 1))
    present_NC = labels_NC == 1
    scaled_NC = scores_NC * scale
    with torch.no_grad():
        u_NC = scaled_NC - margin
        absent_N1 = (~present_NC).sum(dim=1, keepdim=True)
        # Infinities push the other kind of class out of reach of each search.
        u_sorted_NC = u_NC.masked_fill(~present_NC, torch.inf).sort(dim=1).values
        v_sorted_NC = scaled_NC.masked_fill(present_NC, torch.inf).sort(dim=1).values
        below_NC = torch.searchsorted(u_sorted_NC, scaled_NC.contiguous(), right=False)
        not_above_NC = torch.searchsorted(v_sorted_NC, u_NC.contiguous(), right=True)
        pairs_NC = torch.where(present_NC, not_above_NC - absent_N1, below_NC).to(scaled_NC.dtype)
        margins = margin * pairs_NC.clamp(min=0).sum()  # every active pair is counted once, at its absent class
        centre_N1 = scaled_NC.mean(dim=1, keepdim=True)
    # A shift of all scores of an item cancels within every pair; without it the two large sums would lose digits.
    return ((pairs_NC * (scaled_NC - centre_N1)).sum() + margins) / scores_NC.shape[0]


def _asymmetric_terms(
    scores_NC: Tensor, gamma_negative: float, gamma_positive: float, clip: float, weight_gradient: bool
) -> tuple[Tensor, Tensor]:
    """What a present and what an absent class costs, [N, C] each.

    Logarithms of sigmoids are taken in one step: in two steps they are infinite once the sigmoid rounds to 0.
    """
    if not (gamma_negative >= 0 and gamma_positive >= 0 and 0 <= clip < 1):
        raise ValueError(
            f"gamma_negative {gamma_negative} and gamma_positive {gamma_positive} must not be below 0, and clip {clip} "
            "must lie in [0, 1)"
        )
    weighted_NC = scores_NC if weight_gradient else scores_NC.detach()
    present_NC = -F.logsigmoid(scores_NC) * weighted_NC.sigmoid().neg().add(1) ** gamma_positive
    if clip == 0:
        return present_NC, -F.logsigmoid(-scores_NC) * weighted_NC.sigmoid() ** gamma_negative
    # Below the clip an absent class costs nothing. Scores from there are replaced before the powers and logarithms, for
    # a gradient that is masked afterwards is NaN where the formula itself is infinite.
    above_NC = scores_NC.detach().sigmoid() > clip
    absent_NC = -torch.log1p(clip - scores_NC.where(above_NC, scores_NC.new_full((), 10.0)).sigmoid())
    weight_NC = (weighted_NC.where(above_NC, scores_NC.new_full((), 10.0)).sigmoid() - clip) ** gamma_negative
    return present_NC, (absent_NC * weight_NC).where(above_NC, scores_NC.new_zeros(()))


def asymmetric_loss(
    scores_NC: Tensor,
    labels_NC: Tensor,
    *,
    gamma_negative: float = 2.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    weight_gradient: bool = False,
) -> Tensor:
    """ASL (Ridnik et al., ICCV 2021, arXiv 2009.14119): a focal loss that forgives absent classes sooner.

    With ``p = sigmoid(s)`` and ``q = max(p − clip, 0)``, the mean over [N, C] of ``−(1 − p)^γ⁺ · log p`` for a present
    and ``−q^γ⁻ · log(1 − q)`` for an absent class.

    Args:
        scores_NC: [N, C] float, logits.
        labels_NC: [N, C] of 1 (present) and 0 (absent).
        gamma_negative: γ⁻, not below 0.
        gamma_positive: γ⁺, not below 0.
        clip: probability below which an absent class costs nothing, in [0, 1).
        weight_gradient: let the gradient run through the weights ``(1 − p)^γ⁺`` and ``q^γ⁻`` as well. The published
            code takes them as constants; the value is the same.

    Raises:
        ValueError: for shapes, dtypes, labels or constants that do not fit.
    """
    scores_NC, labels_NC = _checked(scores_NC, labels_NC, (0, 1))
    present_NC, absent_NC = _asymmetric_terms(scores_NC, gamma_negative, gamma_positive, clip, weight_gradient)
    return torch.where(labels_NC == 1, present_NC, absent_NC).mean()


def partial_asymmetric_loss(
    scores_NC: Tensor,
    labels_NC: Tensor,
    *,
    gamma_negative: float = 2.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    weight_gradient: bool = False,
) -> Tensor:
    """ASL over known labels only, as DualCoOp trains on partly labelled images.

    The terms of `asymmetric_loss`, **summed** over the classes whose label is known and averaged over the items.

    Args:
        scores_NC: [N, C] float, logits.
        labels_NC: [N, C] of 1 (present), -1 (absent) and 0 (unknown).
        gamma_negative: γ⁻, not below 0.
        gamma_positive: γ⁺, not below 0.
        clip: probability below which an absent class costs nothing, in [0, 1).
        weight_gradient: as in `asymmetric_loss`.

    Raises:
        ValueError: for shapes, dtypes, labels or constants that do not fit.
    """
    scores_NC, labels_NC = _checked(scores_NC, labels_NC, (-1, 0, 1))
    present_NC, absent_NC = _asymmetric_terms(scores_NC, gamma_negative, gamma_positive, clip, weight_gradient)
    unknown_NC = torch.zeros_like(present_NC)
    losses_NC = torch.where(labels_NC == 1, present_NC, torch.where(labels_NC == -1, absent_NC, unknown_NC))
    return losses_NC.sum() / scores_NC.shape[0]


def binary_cross_entropy(scores_NC: Tensor, labels_NC: Tensor) -> Tensor:
    """BCE: the mean over [N, C] of ``−y·log p − (1 − y)·log(1 − p)`` with ``p = sigmoid(s)``.

    Args:
        scores_NC: [N, C] float, logits.
        labels_NC: [N, C] of 1 (present) and 0 (absent).

    Raises:
        ValueError: for shapes, dtypes or labels that do not fit.
    """
    return F.binary_cross_entropy_with_logits(*_checked(scores_NC, labels_NC, (0, 1)))


def focal_loss(scores_NC: Tensor, labels_NC: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017, arXiv 1708.02002) without class balancing.

    The mean over [N, C] of ``−(1 − p_t)^γ · log p_t``, where ``p_t`` is the probability given to the right answer:
    ``sigmoid(s)`` for a present and ``1 − sigmoid(s)`` for an absent class. It is ASL with both γ alike and no clip,
    but here the gradient runs through the weights.

    Args:
        scores_NC: [N, C] float, logits.
        labels_NC: [N, C] of 1 (present) and 0 (absent).
        gamma: not below 0; 0 gives BCE.

    Raises:
        ValueError: for shapes, dtypes, labels or constants that do not fit.
    """
    return asymmetric_loss(
        scores_NC, labels_NC, gamma_negative=gamma, gamma_positive=gamma, clip=0.0, weight_gradient=True
    )


def soft_cross_entropy(scores_NC: Tensor, labels_NC: Tensor) -> Tensor:
    """Cross-entropy between the softmax over classes and the item's classes, each with an equal share.

    ``−1/N · Σ_n Σ_c y_nc / Σ_k y_nk · log softmax(s_n)_c``; an item without a class adds 0.

    Args:
        scores_NC: [N, C] float, logits.
        labels_NC: [N, C] of 1 (present) and 0 (absent).

    Raises:
        ValueError: for shapes, dtypes or labels that do not fit.
    """
    scores_NC, labels_NC = _checked(scores_NC, labels_NC, (0, 1))
    shares_NC = labels_NC / labels_NC.sum(dim=1, keepdim=True).clamp(min=1)
    return -(shares_NC * F.log_softmax(scores_NC, dim=1)).sum() / scores_NC.shape[0]


LOSSES: dict[str, Loss] = {
    "ranking": ranking_loss,
    "asl": asymmetric_loss,
    "bce": binary_cross_entropy,
    "focal": focal_loss,
    "soft_cross_entropy": soft_cross_entropy,
    "asl_partial": partial_asymmetric_loss,
}
