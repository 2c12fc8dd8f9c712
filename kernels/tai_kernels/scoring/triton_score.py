"""Launches the Triton kernels: all scores in one launch and one pass over the rows, and the gradient w.r.t. the class
vectors.

The gradient recomputes the similarities from the saved log-sum-exp in slices of rows and multiplies once more; it adds
in a fixed order, so it is reproducible.

fp32 rows, and every call whose gradient is wanted, are multiplied in IEEE fp32, never in TF32. Other rows are
multiplied in their own dtype (int8 in fp16) with fp32 sums.

Shape legend: N items, T rows of all items together, D embedding size, C classes.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from tai_kernels.scoring.bags import Bags
from tai_kernels.scoring.call import ScoreCall, ScoreResult
from tai_kernels.scoring.triton_config import (
    ForwardConfig,
    autotuning_is_wanted,
    candidates,
    fixed_config,
    fuses_coarse,
    matmul_config,
    shared_bytes,
)
from tai_kernels.scoring.triton_kernels import forward_kernel, matmul_kernel, weight_kernel

# Triton decides when it decorates a kernel whether it will be interpreted.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Beside the dtypes: a choice is good for these numbers, and (by its candidates) for so many rows per item.
_TUNED_BY = ["classes", "dim", "MAX_POOLING", "HAS_SCALES", "FUSED", "PARTS", "SAVE"]

_WEIGHT_BYTES = 32 << 20  # of the gradient's scratch: what an H100 keeps in its second-level cache


def _multiply_dtype(rows: Tensor, exact: bool) -> torch.dtype:
    # The interpreter's bf16 products are wrong, so it gets them in fp32, which holds every bf16 number.
    if exact or rows.dtype == torch.float32 or (INTERPRETED and rows.dtype == torch.bfloat16):
        return torch.float32
    return torch.float16 if rows.dtype == torch.int8 else rows.dtype


def _row_major(rows: Tensor) -> Tensor:
    if INTERPRETED and rows.dtype == torch.bfloat16:
        return rows.float().contiguous()
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _matmul(a: Tensor, b: Tensor, out: Tensor, *, scale: float = 1.0, add: bool = False) -> None:
    """out [M, N] fp32 (+)= scale · a [M, K] · b [K, N], any strides."""
    (m_size, k_size), n_size = a.shape, b.shape[1]
    if out.numel() == 0 or (add and k_size == 0):
        return
    widen = a.dtype != b.dtype or a.dtype not in (torch.float16, torch.bfloat16)
    config = matmul_config(widen)
    grid = (triton.cdiv(m_size, config.block_m), triton.cdiv(n_size, config.block_n))
    matmul_kernel[grid](
        a,
        b,
        out,
        m_size,
        n_size,
        k_size,
        *a.stride(),
        *b.stride(),
        scale,
        ADD=add,
        WIDEN=widen,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        num_warps=config.warps,
        num_stages=config.stages,
    )


def forward(
    call: ScoreCall, *, parts: bool = True, save: bool = False, config: ForwardConfig | None = None
) -> ScoreResult:
    """Scores of every item and class (``cpu_score.forward``), with no memory beside the outputs and the class vectors.

    Args:
        call: on a GPU, or on the CPU in Triton's interpreter.
        parts: also return the coarse and the fine scores.
        save: also return the pooling state, and compute in fp32.
        config: launch configuration; None takes the fixed one of the call's sizes, or the fastest.
    """
    p = call
    result = ScoreResult.allocate(p, parts=parts, save=save)
    if p.items == 0:
        return result
    coarse = _row_major(p.coarse)
    global_CD = p.class_global.to(_multiply_dtype(p.coarse, save)).contiguous()
    dtype = _multiply_dtype(p.fine, save)
    local_CD = p.class_local.to(dtype).contiguous()
    rows = _row_major(p.fine)
    offsets = p.bags.offsets.to(rows.device, non_blocking=True)
    fused = fuses_coarse(global_CD.dtype, dtype)
    coarse_out = torch.empty_like(result.merged) if not (parts or fused) else result.coarse
    constants = {
        "MAX_POOLING": p.pooling == "max",
        "HAS_SCALES": p.fine_scales is not None,
        "FUSED": fused,
        "PARTS": parts,
        "SAVE": save,
    }

    def grid(chosen: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(p.items, chosen["ITEMS"]) * triton.cdiv(p.classes, chosen["BLOCK_C"]),)

    with torch.cuda.device_of(rows):  # Triton launches on the current device
        if not fused:
            _matmul(coarse, global_CD.T, coarse_out, scale=p.scale)
        kernel, chosen = _forward_kernel(config, mean_rows(p.bags), p.classes, p.dim, dtype, rows.device)
        kernel[grid](
            rows,
            offsets,
            local_CD,
            p.fine_scales,
            coarse,
            global_CD,
            coarse_out,
            result.fine,
            result.merged,
            result.state,
            p.items,
            p.classes,
            p.dim,
            rows.stride(0),
            coarse.stride(0),
            p.temperature,
            p.scale,
            p.mix,
            **constants,
            **chosen,
        )
    return result


def _forward_kernel(
    config: ForwardConfig | None, rows_per_item: int, classes: int, dim: int, dtype: torch.dtype, device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """What is launched, and the constants and options that it does not choose itself."""
    shared = shared_bytes(device)
    if config is None and device.type == "cuda" and autotuning_is_wanted():
        tried = candidates(rows_per_item, classes, dtype, shared)
        return _autotuned(tuple(tried)), {"EVEN_D": dim % tried[0].block_d == 0}
    config = config or fixed_config(rows_per_item, classes, dtype, shared)
    return forward_kernel, {"EVEN_D": dim % config.block_d == 0, **config.constants(), **config.options()}


@cache
def _autotuned(tried: tuple[ForwardConfig, ...]) -> Any:
    """The forward kernel in whichever of these configurations is fastest: measured once, kept in Triton's own cache."""
    configs = [triton.Config(config.constants(), **config.options()) for config in tried]
    return triton.autotune(configs, key=_TUNED_BY, cache_results=True)(forward_kernel)


def mean_rows(bags: Bags) -> int:
    """Rows per item, rounded, at least 1: what the launch configuration is chosen by."""
    return bags.rows_per_item or max(1, round(int(bags.offsets[-1]) / max(bags.items, 1)))


def pooled_gradient(call: ScoreCall, values_NC: Tensor, state_NC: Tensor, grad_NC: Tensor) -> Tensor:
    """Gradient w.r.t. the local class vectors, [C, D] fp32 (``cpu_score.pooled_gradient``).

    Holds 32 MiB of recomputed weights at a time (one tile of rows times C, if that is more).
    """
    p = call
    rows = _row_major(p.fine)
    grad_CD = torch.zeros(p.classes, p.dim, dtype=torch.float32, device=rows.device)
    total = rows.shape[0]
    if total == 0:
        return grad_CD
    offsets = p.bags.offsets.to(rows.device, non_blocking=True)
    item_T = torch.repeat_interleave(torch.arange(p.items, dtype=torch.int32), p.bags.offsets.diff()).to(rows.device)
    local_CD = p.class_local.float().contiguous()
    values_NC, state_NC, grad_NC = values_NC.contiguous(), state_NC.contiguous(), grad_NC.contiguous()
    config = fixed_config(mean_rows(p.bags), p.classes, torch.float32)
    step = max(config.rows, _WEIGHT_BYTES // (4 * p.classes))
    with torch.cuda.device_of(rows):
        for first in range(0, total, step):
            stop = min(first + step, total)
            weight_TC = torch.empty(stop - first, p.classes, dtype=torch.float32, device=rows.device)
            grid = (triton.cdiv(stop - first, config.rows), triton.cdiv(p.classes, config.block_c))
            weight_kernel[grid](
                rows,
                offsets,
                item_T,
                local_CD,
                p.fine_scales,
                values_NC,
                state_NC,
                grad_NC,
                weight_TC,
                first,
                stop,
                p.classes,
                p.dim,
                rows.stride(0),
                p.temperature,
                MAX_POOLING=p.pooling == "max",
                HAS_SCALES=p.fine_scales is not None,
                EVEN_D=p.dim % config.block_d == 0,
                ROWS=config.rows,
                BLOCK_C=config.block_c,
                BLOCK_D=config.block_d,
                **config.options(),
            )
            _matmul(weight_TC.T, rows[first:stop], grad_CD, add=True)
    return grad_CD
