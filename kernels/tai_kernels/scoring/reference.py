"""Coarse and fine scores in eager torch, in fp32 (or fp64 when given): what every kernel must equal.

It writes the [N, L, C] similarities out, so it is for tests and small inputs. Autograd differentiates it.

Shape legend: N items, T rows of all items together, L rows per item, D embedding size, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tai_kernels.scoring.bags import check_bags, pad, unpad
from tai_kernels.scoring.call import ScoreCall, ScoreResult
from tai_kernels.scoring.pooling import Pooled, pool, pooling_gradient


class Scores(NamedTuple):
    """Scores of every class for every item, [N, C] each: fp32 (fp64 from the reference on fp64 input)."""

    coarse: Tensor
    fine: Tensor
    merged: Tensor


def widen(x: Tensor) -> Tensor:
    """``x`` in at least fp32."""
    return x if x.dtype == torch.float64 else x.float()


def dequantise(fine_TD: Tensor, fine_scales_T: Tensor | None) -> Tensor:
    """Rows in at least fp32; int8 rows times their scale per row."""
    rows_TD = widen(fine_TD)
    return rows_TD if fine_scales_T is None else rows_TD * fine_scales_T.to(rows_TD.dtype)[:, None]


def score(
    coarse_ND: Tensor,
    fine_TD: Tensor,
    offsets: Tensor,
    class_global_CD: Tensor,
    class_local_CD: Tensor,
    *,
    pooling: str,
    temperature: float,
    scale: float = 4.0,
    mix: float = 0.5,
    fine_scales_T: Tensor | None = None,
) -> Scores:
    """Coarse, fine and merged scores (arXiv 2211.12739, section 3.3); rows and class vectors are of unit length.

    ``coarse = k·g·Tgᵀ``, ``fine = k·pool(p·Tlᵀ)``, ``merged = mix·coarse + (1 − mix)·fine``; the fine score of an item
    without rows is its coarse score.

    Args:
        coarse_ND: [N, D] float.
        fine_TD: [T, D] float, or int8 with ``fine_scales_T`` [T].
        offsets: [N + 1] int64.
        class_global_CD: [C, D] float.
        class_local_CD: [C, D] float.
        pooling: one of ``POOLING_MODES``.
        temperature: τ of the softmax.
        scale: k.
        mix: weight of the coarse score.
        fine_scales_T: [T] float, for int8 rows.
    """
    bags = check_bags(offsets, fine_TD.shape[0])
    coarse_NC = scale * (widen(coarse_ND) @ widen(class_global_CD).T)
    if bags.items == 0:
        return Scores(coarse_NC, torch.zeros_like(coarse_NC), torch.zeros_like(coarse_NC))
    similarities_TC = dequantise(fine_TD, fine_scales_T) @ widen(class_local_CD).T
    similarities_NLC, mask_NL = pad(similarities_TC, bags.offsets)
    fine_NC = scale * pool(similarities_NLC, pooling, temperature, mask_NL).values
    empty_N = bags.empty_items().to(fine_NC.device)
    fine_NC = torch.where(empty_N[:, None], coarse_NC, fine_NC)
    return Scores(coarse_NC, fine_NC, mix * coarse_NC + (1 - mix) * fine_NC)


def forward(call: ScoreCall, *, parts: bool = True, save: bool = False) -> ScoreResult:
    """The reference behind the common backend interface (``cpu_score.forward``)."""
    p = call
    scores = score(
        p.coarse,
        p.fine,
        p.bags.offsets,
        p.class_global,
        p.class_local,
        pooling=p.pooling,
        temperature=p.temperature,
        scale=p.scale,
        mix=p.mix,
        fine_scales_T=p.fine_scales,
    )
    result = ScoreResult.allocate(p, parts=parts, save=save)
    for target, source in zip((result.coarse, result.fine, result.merged), scores, strict=True):
        if target.ndim == 2:
            target.copy_(source)
    if save and p.items:
        similarities_TC = dequantise(p.fine, p.fine_scales) @ widen(p.class_local).T
        similarities_NLC, mask_NL = pad(similarities_TC, p.bags.offsets)
        result.state.copy_(pool(similarities_NLC, p.pooling, p.temperature, mask_NL).state)
    return result


def pooled_gradient(call: ScoreCall, values_NC: Tensor, state_NC: Tensor, grad_NC: Tensor) -> Tensor:
    """Gradient w.r.t. the local class vectors, [C, D] fp32, by the formula in ``pooling``.

    Autograd cannot run inside an op, so the formula stands here; tests hold it against autograd through ``score``.
    """
    p = call
    if p.items == 0:
        return torch.zeros_like(p.class_local, dtype=torch.float32)
    rows_TD = dequantise(p.fine, p.fine_scales)
    similarities_NLC, mask_NL = pad(rows_TD @ widen(p.class_local).T, p.bags.offsets)
    pooled = Pooled(values_NC, state_NC)
    weight_NLC = pooling_gradient(similarities_NLC, p.pooling, p.temperature, pooled, mask_NL)
    return unpad(weight_NLC * grad_NC[:, None, :], p.bags.offsets).T @ rows_TD
