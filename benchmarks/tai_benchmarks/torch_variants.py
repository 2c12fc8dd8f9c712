"""The fastest that plain torch does: what the kernels must beat beside the published formulation.

All take unit-length vectors, prepared beforehand: the published formulation without normalising, in fp32 and bf16; the
same compiled; and matrix products in chunks whose similarities stay in cache, with the pooling right behind them, eager
and compiled.

Shape legend: N items, L rows per item, D embedding size, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tai_benchmarks.published import prenormalised_scores
from tai_kernels.scoring.ops import Scores

_LARGEST_EXPONENT = 80.0  # exp(-80) is still a normal fp32 number
_MOST_CLASSES = 5000  # of one product


@dataclass(frozen=True)
class Variant:
    """One way to score in torch.

    Attributes:
        name: as rows spell it; the dtype is told apart by the case.
        chunked: products in chunks with the pooling behind them, not all similarities at once.
        compiled: through ``torch.compile``.
    """

    name: str
    chunked: bool
    compiled: bool


VARIANTS = (
    Variant("torch-prenormalised", chunked=False, compiled=False),
    Variant("torch-chunked", chunked=True, compiled=False),
    Variant("torch-compile", chunked=False, compiled=True),
    Variant("torch-compile-chunked", chunked=True, compiled=True),
)


def chunk_bytes(device: torch.device) -> int:
    """Similarities of one chunk that stay in the last-level cache beside the rows."""
    return 32 << 20 if device.type == "cuda" else 4 << 20


def whole_bytes(device: torch.device) -> int:
    """Similarities of one batch where they are one tensor; several of that size are held at a time."""
    return 4 << 30 if device.type == "cuda" else 256 << 20


def pooled(similarities_NLC: Tensor, pooling: str, temperature: float) -> Tensor:
    """Pooled similarities [N, C] in fp32; while tau allows, the bound cos <= 1 stands in for the maximum."""
    if pooling == "max":
        return similarities_NLC.amax(dim=1).float()
    similarities_NLC = similarities_NLC.float()
    if 2 * temperature <= _LARGEST_EXPONENT:
        weights_NLC = (similarities_NLC * temperature - temperature).exp()
    else:
        weights_NLC = ((similarities_NLC - similarities_NLC.amax(dim=1, keepdim=True)) * temperature).exp()
    return (weights_NLC * similarities_NLC).sum(dim=1) / weights_NLC.sum(dim=1)


def pooled_product(local_NLD: Tensor, class_local_CD: Tensor, pooling: str, temperature: float) -> Tensor:
    """One product and its pooling: [N, C] fp32."""
    n, rows, dim = local_NLD.shape
    similarities_NLC = (local_NLD.reshape(n * rows, dim) @ class_local_CD.T).view(n, rows, -1)
    return pooled(similarities_NLC, pooling, temperature)


def runner(
    variant: Variant, pooling: str, temperature: float, scale: float
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Scores]:
    """The variant as a function of (coarse [N, D], fine [N, L, D], global [C, D], local [C, D]) of one dtype.

    Scores are fp32 for the chunked variants and in the dtype of the rows for the others. Beside the scores a chunked
    variant holds a few times ``chunk_bytes``, another a few times ``whole_bytes``.
    """

    def whole(coarse_ND: Tensor, fine_NLD: Tensor, global_CD: Tensor, local_CD: Tensor) -> Scores:
        return prenormalised_scores(
            coarse_ND, fine_NLD, global_CD, local_CD, temperature=temperature, scale=scale, pooling=pooling
        )

    def product(fine_NLD: Tensor, local_CD: Tensor) -> Tensor:
        return pooled_product(fine_NLD, local_CD, pooling, temperature)

    if variant.compiled:
        # dynamic=False: each case has few shapes, and static ones give the faster code.
        whole, product = torch.compile(whole, dynamic=False), torch.compile(product, dynamic=False)

    def chunked(coarse_ND: Tensor, fine_NLD: Tensor, global_CD: Tensor, local_CD: Tensor) -> Scores:
        n, rows, classes = fine_NLD.shape[0], fine_NLD.shape[1], local_CD.shape[0]
        coarse_NC = scale * (coarse_ND @ global_CD.T).float()
        fine_NC = torch.empty_like(coarse_NC)
        class_step = -(-classes // -(-classes // _MOST_CLASSES))
        step = power_of_two_below(chunk_bytes(fine_NLD.device) // (4 * rows * class_step))
        for start in range(0, n, step):
            for low in range(0, classes, class_step):
                part = (slice(start, start + step), slice(low, low + class_step))
                fine_NC[part] = scale * product(fine_NLD[part[0]], local_CD[part[1]])
        return Scores(coarse_NC, fine_NC, 0.5 * coarse_NC + 0.5 * fine_NC)

    def batched(coarse_ND: Tensor, fine_NLD: Tensor, global_CD: Tensor, local_CD: Tensor) -> Scores:
        step = whole_batch(fine_NLD.shape[1], local_CD.shape[0], fine_NLD.device)
        return in_batches(lambda c, f: whole(c, f, global_CD, local_CD), coarse_ND, fine_NLD, step)

    return chunked if variant.chunked else batched


def power_of_two_below(count: int) -> int:
    """The largest power of two up to ``count``; 1 for less than that."""
    return 1 << (max(count, 1).bit_length() - 1)


def whole_batch(rows_per_item: int, classes: int, device: torch.device) -> int:
    """Items whose similarities may be one tensor."""
    return power_of_two_below(whole_bytes(device) // (4 * rows_per_item * classes))


def in_batches(score: Callable[[Tensor, Tensor], Scores], coarse_ND: Tensor, fine_NLD: Tensor, step: int) -> Scores:
    """Score ``step`` items at a time, so that a formulation that holds all similarities fits in memory."""
    if step >= coarse_ND.shape[0]:
        return score(coarse_ND, fine_NLD)
    parts = [score(coarse_ND[i : i + step], fine_NLD[i : i + step]) for i in range(0, coarse_ND.shape[0], step)]
    return Scores(*(torch.cat(column) for column in zip(*parts, strict=True)))


def product_only(coarse_ND: Tensor, fine_NLD: Tensor, global_CD: Tensor, local_CD: Tensor) -> None:
    """The bare matrix products that no scoring can do without, their results thrown away chunk by chunk."""
    torch.mm(coarse_ND, global_CD.T)
    rows_TD = fine_NLD.flatten(0, 1)
    step = max(1, chunk_bytes(fine_NLD.device) // (4 * local_CD.shape[0]))
    out = torch.empty(min(step, rows_TD.shape[0]), local_CD.shape[0], dtype=fine_NLD.dtype, device=fine_NLD.device)
    for start in range(0, rows_TD.shape[0], step):
        part_TD = rows_TD[start : start + step]
        torch.mm(part_TD, local_CD.T, out=out[: part_TD.shape[0]])
