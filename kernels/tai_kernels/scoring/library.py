"""The ``torch.library`` ops behind ``ops``: their implementations, fakes and autograd.

The backend is chosen, and the offsets are read, inside the ops, where torch.compile does not look.

Shape legend: N items, T rows of all items together, L rows per item, D embedding size, C classes, K and M kept scores.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from tai_kernels.scoring import backends, selection
from tai_kernels.scoring.bags import check_bags, dense_bags
from tai_kernels.scoring.pooling import check_pooling
from tai_kernels.scoring.problem import Problem, state_dtype

SLICE_BYTES = 32 << 20
"""Merged scores held at a time when only some are kept."""


def make_problem(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
    empty_coarse: bool,
) -> Problem:
    """The checked problem of one call; this reads the offsets.

    Raises:
        ValueError: for offsets that do not fit, or an item without rows unless ``empty_coarse``.
    """
    bags = dense_bags(*fine.shape[:2]) if offsets is None else check_bags(offsets, fine.shape[0])
    empty_N = bags.empty_items()
    if not empty_coarse and bool(empty_N.any()):
        first = int(empty_N.nonzero()[0])
        raise ValueError(
            f"item {first} (of {int(empty_N.sum())} such) has no fine rows; "
            'score coarse-only items with empty="coarse" or score_coarse()'
        )
    return Problem(
        coarse=coarse,
        fine=fine.reshape(-1, fine.shape[-1]),
        bags=bags,
        class_global=class_global,
        class_local=class_local,
        fine_scales=None if fine_scales is None else fine_scales.reshape(-1).float(),
        pooling=check_pooling(pooling),
        temperature=temperature,
        scale=scale,
        mix=mix,
    )


@torch.library.custom_op("tai::score", mutates_args=())
def _score(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
    empty_coarse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coarse, fine, merged [N, C] and, with ``save``, the pooling state that the gradient needs (else [0])."""
    problem = make_problem(
        coarse,
        fine,
        offsets,
        class_global,
        class_local,
        fine_scales,
        pooling,
        temperature,
        scale,
        mix,
        empty_coarse,
    )
    backend = backends.load(backends.choose(coarse.device))
    result = backend.forward(problem, parts=True, save=save)
    return result.coarse, result.fine, result.merged, result.state


@_score.register_fake
def _(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
    empty_coarse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    whole = (coarse.shape[0], class_global.shape[0])
    parts = [coarse.new_empty(whole, dtype=torch.float32) for _ in range(3)]
    state = coarse.new_empty(whole if save else (0,), dtype=state_dtype(pooling))
    return parts[0], parts[1], parts[2], state


@torch.library.custom_op("tai::score_backward", mutates_args=())
def _score_backward(
    grad_coarse: Tensor,
    grad_fine: Tensor,
    grad_merged: Tensor,
    fine_scores: Tensor,
    state: Tensor,
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
) -> tuple[Tensor, Tensor]:
    """Gradients w.r.t. the global and the local class vectors, [C, D] each in their dtype."""
    problem = make_problem(
        coarse, fine, offsets, class_global, class_local, fine_scales, pooling, temperature, scale, mix, True
    )
    backend = backends.load(backends.choose(coarse.device))
    grad_coarse_NC = scale * (grad_coarse + mix * grad_merged)
    grad_fine_NC = scale * (grad_fine + (1 - mix) * grad_merged)
    empty_N = problem.bags.empty_items()
    if bool(empty_N.any()):  # their fine score is their coarse score
        empty_N1 = empty_N.to(coarse.device)[:, None]
        grad_coarse_NC = torch.where(empty_N1, grad_coarse_NC + grad_fine_NC, grad_coarse_NC)
        grad_fine_NC = grad_fine_NC.masked_fill(empty_N1, 0.0)
    grad_global = grad_coarse_NC.T @ coarse.float()
    grad_local = backend.pooled_gradient(problem, fine_scores / scale, state, grad_fine_NC)
    return grad_global.to(class_global.dtype), grad_local.to(class_local.dtype)


@_score_backward.register_fake
def _(
    grad_coarse: Tensor,
    grad_fine: Tensor,
    grad_merged: Tensor,
    fine_scores: Tensor,
    state: Tensor,
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(class_global), torch.empty_like(class_local)


def _keep_for_backward(ctx: object, inputs: tuple, output: tuple) -> None:
    coarse, fine, offsets, class_global, class_local, fine_scales, *settings, _, save = inputs
    ctx.rows_need_grad = coarse.requires_grad or fine.requires_grad  # type: ignore[attr-defined]
    ctx.saved, ctx.settings = save, settings  # type: ignore[attr-defined]
    ctx.save_for_backward(  # type: ignore[attr-defined]
        output[1], output[3], coarse, fine, offsets, class_global, class_local, fine_scales
    )


def _backward(ctx: object, grad_coarse: Tensor, grad_fine: Tensor, grad_merged: Tensor, _: Tensor | None) -> tuple:
    if ctx.rows_need_grad:  # type: ignore[attr-defined]
        raise NotImplementedError("tai::score has no gradient w.r.t. rows; detach() coarse and fine")
    if not ctx.saved:  # type: ignore[attr-defined]
        raise RuntimeError("tai::score was called with save=False, so its gradient cannot be computed")
    grad_global, grad_local = torch.ops.tai.score_backward(
        grad_coarse,
        grad_fine,
        grad_merged,
        *ctx.saved_tensors,  # type: ignore[attr-defined]
        *ctx.settings,  # type: ignore[attr-defined]
    )
    return (None, None, None, grad_global, grad_local, *[None] * 7)


_score.register_autograd(_backward, setup_context=_keep_for_backward)


def _slices(problem: Problem) -> Iterator[Tensor]:
    """Merged scores of consecutive items, at most ``SLICE_BYTES`` at a time (one item at least)."""
    backend = backends.load(backends.choose(problem.coarse.device))
    step = max(1, SLICE_BYTES // (4 * problem.classes))
    for start in range(0, problem.items, step):
        part = problem.part(start, min(start + step, problem.items))
        yield backend.forward(part, parts=False).merged


@torch.library.custom_op("tai::score_top_k", mutates_args=())
def _score_top_k(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    k: int,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
    empty_coarse: bool,
) -> tuple[Tensor, Tensor]:
    """Scores [N, K] and class indices [N, K]."""
    problem = make_problem(
        coarse,
        fine,
        offsets,
        class_global,
        class_local,
        fine_scales,
        pooling,
        temperature,
        scale,
        mix,
        empty_coarse,
    )
    scores = coarse.new_empty((problem.items, min(k, problem.classes)), dtype=torch.float32)
    classes = torch.empty_like(scores, dtype=torch.int64)
    start = 0
    for merged_NC in _slices(problem):
        stop = start + merged_NC.shape[0]
        scores[start:stop], classes[start:stop] = selection.top_k(merged_NC, k)
        start = stop
    return scores, classes


@_score_top_k.register_fake
def _(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    k: int,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
    empty_coarse: bool,
) -> tuple[Tensor, Tensor]:
    scores = coarse.new_empty((coarse.shape[0], min(k, class_global.shape[0])), dtype=torch.float32)
    return scores, torch.empty_like(scores, dtype=torch.int64)


@torch.library.custom_op("tai::score_above", mutates_args=())
def _score_above(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    thresholds: Tensor,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
    empty_coarse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [M], class indices [M], offsets [N + 1]."""
    problem = make_problem(
        coarse,
        fine,
        offsets,
        class_global,
        class_local,
        fine_scales,
        pooling,
        temperature,
        scale,
        mix,
        empty_coarse,
    )
    kept: list[tuple[Tensor, ...]] = [selection.above(merged_NC, thresholds) for merged_NC in _slices(problem)]
    kept.append((coarse.new_empty(0, dtype=torch.float32), *[coarse.new_empty(0, dtype=torch.int64)] * 2))
    scores, classes, counts = (torch.cat(column) for column in zip(*kept, strict=True))
    return scores, classes, torch.cat([counts.new_zeros(1), counts.cumsum(0)])


@_score_above.register_fake
def _(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
    thresholds: Tensor,
    pooling: str,
    temperature: float,
    scale: float,
    mix: float,
    empty_coarse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    return (
        coarse.new_empty((kept,), dtype=torch.float32),
        coarse.new_empty((kept,), dtype=torch.int64),
        coarse.new_empty((coarse.shape[0] + 1,), dtype=torch.int64),
    )
