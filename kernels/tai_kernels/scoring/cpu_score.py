"""Scoring in blocks of plain torch: the CPU path that is always there, and the fallback of every other device.

A block's similarities stay small enough for the caches and no [N, L, C] tensor is ever written: beside its outputs the
path holds one block of rows in fp32 and one of similarities (``_BLOCK_BYTES`` each, more only for a single item whose
own rows exceed that).

Shape legend: N items, T rows of all items together, L rows per item, D embedding size, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tai_kernels.scoring.bags import Bags, blocks, pad, unpad
from tai_kernels.scoring.call import ScoreCall, ScoreResult
from tai_kernels.scoring.pooling import Pooled, pool, pooling_gradient

# Large enough that torch's cost per call vanishes, small enough that a block is still in the last-level cache when the
# pooling reads it.
_BLOCK_BYTES = 8 << 20


def compute_dtype(rows: Tensor, exact: bool) -> torch.dtype:
    """The dtype that rows and class vectors are multiplied in.

    Half-precision rows are multiplied as they are on an accelerator and in fp32 on a CPU, where torch gives a bf16
    product back rounded to bf16: similarities of eight bits, of which many are equal. ``exact`` asks for fp32: the
    gradient recomputes the similarities in fp32 and must find the same ones.
    """
    if exact or rows.dtype == torch.float32 or rows.device.type == "cpu":
        return torch.float32
    return torch.float16 if rows.dtype == torch.int8 else rows.dtype


def _multiply(rows_TD: Tensor, classes_DC: Tensor, scales_T: Tensor | None) -> Tensor:
    """Similarities [T, C] in fp32."""
    product_TC = (rows_TD.to(classes_DC.dtype) @ classes_DC).float()
    return product_TC if scales_T is None else product_TC.mul_(scales_T[:, None])


def _item_blocks(bags: Bags, dim: int, classes: int) -> Iterator[tuple[int, int, int, int, Tensor]]:
    """Item range, row range and rebased offsets of each block."""
    rows = max(64, _BLOCK_BYTES // (4 * max(dim, min(classes, 1024))))
    for start, stop in blocks(bags, rows):
        first, last = int(bags.offsets[start]), int(bags.offsets[stop])
        yield start, stop, first, last, bags.offsets[start : stop + 1] - first


def _class_step(rows: int) -> int:
    return max(64, _BLOCK_BYTES // (4 * max(rows, 1)))


def forward(call: ScoreCall, *, parts: bool = True, save: bool = False) -> ScoreResult:
    """Scores of every item and class; see ``call.ScoreResult`` for what ``parts`` and ``save`` add.

    The fine score of an item without rows is its coarse score.
    """
    p = call
    n, c, dim = p.items, p.classes, p.class_local.shape[1]
    dtype = compute_dtype(p.fine, exact=save)
    global_DC = p.class_global.to(compute_dtype(p.coarse, exact=save)).T
    local_DC = p.class_local.to(dtype).T
    result = ScoreResult.allocate(p, parts=parts, save=save)
    for start, stop, first, last, offsets in _item_blocks(p.bags, dim, c):
        rows_TD = p.fine[first:last].to(dtype)
        scales_T = None if p.fine_scales is None else p.fine_scales[first:last]
        coarse_ND = p.coarse[start:stop].to(global_DC.dtype)
        empty_N1 = (offsets.diff() == 0)[:, None].to(rows_TD.device)
        step = _class_step(last - first)
        for low in range(0, c, step):
            high = min(low + step, c)
            coarse_NC = _multiply(coarse_ND, global_DC[:, low:high], None).mul_(p.scale)
            similarities_NLC, mask_NL = pad(_multiply(rows_TD, local_DC[:, low:high], scales_T), offsets)
            pooled = pool(similarities_NLC, p.pooling, p.temperature, mask_NL)
            fine_NC = torch.where(empty_N1, coarse_NC, pooled.values * p.scale)
            result.merged[start:stop, low:high] = torch.lerp(fine_NC, coarse_NC, p.mix)
            if parts:
                result.coarse[start:stop, low:high] = coarse_NC
                result.fine[start:stop, low:high] = fine_NC
            if save:
                result.state[start:stop, low:high] = pooled.state
    assert result.merged.shape == (n, c)
    return result


def pooled_gradient(call: ScoreCall, values_NC: Tensor, state_NC: Tensor, grad_NC: Tensor) -> Tensor:
    """Gradient w.r.t. the local class vectors, [C, D] fp32, recomputing the similarities block by block.

    Args:
        call: the forward's inputs.
        values_NC: pooled similarities before the scale.
        state_NC: what the forward saved.
        grad_NC: gradient w.r.t. the pooled similarities; zero for items without rows.
    """
    p = call
    dim = p.class_local.shape[1]
    grad_CD = torch.zeros(p.classes, dim, dtype=torch.float32, device=p.fine.device)
    # fp32 throughout: the gradient is small work and feeds an optimiser.
    local_DC = p.class_local.float().T
    for start, stop, first, last, offsets in _item_blocks(p.bags, dim, p.classes):
        if first == last:
            continue
        rows_TD = p.fine[first:last].float()
        if p.fine_scales is not None:
            rows_TD = rows_TD * p.fine_scales[first:last, None]
        step = _class_step(last - first)
        for low in range(0, p.classes, step):
            block = (slice(start, stop), slice(low, min(low + step, p.classes)))
            similarities_NLC, mask_NL = pad(rows_TD @ local_DC[:, block[1]], offsets)
            pooled = Pooled(values_NC[block], state_NC[block])
            weight_NLC = pooling_gradient(similarities_NLC, p.pooling, p.temperature, pooled, mask_NL)
            weight_TC = unpad(weight_NLC * grad_NC[block][:, None, :], offsets)
            grad_CD[block[1]].addmm_(weight_TC.T, rows_TD)
    return grad_CD
