"""The ``torch.library`` ops behind ``ops``: their implementations, fakes and autograd.

The backend is chosen, and the offsets are read, inside the ops, where torch.compile does not look. Every op takes
``call.ScoreArguments`` and one or a few more after them. What an op computes is also a function of its own, for calls
that nobody compiles or differentiates: an op imports ``torch._dynamo`` when it first runs, which takes two seconds.

Shape legend: N items, C classes, K and M kept scores.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tai_kernels.scoring import backends, selection
from tai_kernels.scoring.call import ARGUMENTS_SCHEMA, ScoreArguments, ScoreCall, make_call, state_dtype

SLICE_BYTES = 32 << 20
"""Merged scores held at a time when only some are kept."""

_TENSORS = ARGUMENTS_SCHEMA.count("Tensor")


def _schema(more: str, results: int) -> str:
    return f"({ARGUMENTS_SCHEMA}, {more}) -> ({', '.join(['Tensor'] * results)})"


def compute_scores(*values: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coarse, fine, merged [N, C] and, with ``save``, the pooling state that the gradient needs (else [0])."""
    *shared, save = values
    call = make_call(ScoreArguments(*shared))
    backend = backends.load(backends.choose(call.coarse.device))
    result = backend.forward(call, parts=True, save=save)
    return result.coarse, result.fine, result.merged, result.state


_score = torch.library.custom_op("tai::score", compute_scores, mutates_args=(), schema=_schema("bool save", 4))


@_score.register_fake
def _(*values: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *shared, save = values
    a = ScoreArguments(*shared)
    whole = (a.coarse.shape[0], a.class_global.shape[0])
    parts = [a.coarse.new_empty(whole, dtype=torch.float32) for _ in range(3)]
    state = a.coarse.new_empty(whole if save else (0,), dtype=state_dtype(a.pooling))
    return parts[0], parts[1], parts[2], state


_GRADIENTS = "Tensor grad_coarse, Tensor grad_fine, Tensor grad_merged, Tensor fine_scores, Tensor state"


@torch.library.custom_op("tai::score_backward", mutates_args=(), schema=_schema(_GRADIENTS, 2))
def _score_backward(*values: Any) -> tuple[Tensor, Tensor]:
    """Gradients w.r.t. the global and the local class vectors, [C, D] each in their dtype."""
    *shared, grad_coarse, grad_fine, grad_merged, fine_scores, state = values
    call = make_call(ScoreArguments(*shared))
    backend = backends.load(backends.choose(call.coarse.device))
    grad_coarse_NC = call.scale * (grad_coarse + call.mix * grad_merged)
    grad_fine_NC = call.scale * (grad_fine + (1 - call.mix) * grad_merged)
    empty_N = call.bags.empty_items()
    if bool(empty_N.any()):  # their fine score is their coarse score
        empty_N1 = empty_N.to(call.coarse.device)[:, None]
        grad_coarse_NC = torch.where(empty_N1, grad_coarse_NC + grad_fine_NC, grad_coarse_NC)
        grad_fine_NC = grad_fine_NC.masked_fill(empty_N1, 0.0)
    grad_global = grad_coarse_NC.T @ call.coarse.float()
    grad_local = backend.pooled_gradient(call, fine_scores / call.scale, state, grad_fine_NC)
    return grad_global.to(call.class_global.dtype), grad_local.to(call.class_local.dtype)


@_score_backward.register_fake
def _(*values: Any) -> tuple[Tensor, Tensor]:
    a = ScoreArguments(*values[: len(ScoreArguments._fields)])
    return torch.empty_like(a.class_global), torch.empty_like(a.class_local)


def _keep_for_backward(ctx: Any, inputs: tuple, output: tuple) -> None:
    *shared, save = inputs
    a = ScoreArguments(*shared)
    ctx.rows_need_grad = a.coarse.requires_grad or a.fine.requires_grad
    ctx.saved, ctx.settings = save, a[_TENSORS:]
    ctx.save_for_backward(*a[:_TENSORS], output[1], output[3])


def _backward(ctx: Any, grad_coarse: Tensor, grad_fine: Tensor, grad_merged: Tensor, _: Tensor | None) -> tuple:
    if ctx.rows_need_grad:
        raise NotImplementedError("tai::score has no gradient w.r.t. rows; detach() coarse and fine")
    if not ctx.saved:
        raise RuntimeError("tai::score was called with save=False, so its gradient cannot be computed")
    *tensors, fine_scores, state = ctx.saved_tensors
    grad_global, grad_local = torch.ops.tai.score_backward(
        *tensors, *ctx.settings, grad_coarse, grad_fine, grad_merged, fine_scores, state
    )
    gradients = {"class_global": grad_global, "class_local": grad_local}
    return (*(gradients.get(name) for name in ScoreArguments._fields), None)


_score.register_autograd(_backward, setup_context=_keep_for_backward)


def _slices(call: ScoreCall) -> Iterator[Tensor]:
    """Merged scores of consecutive items, at most ``SLICE_BYTES`` at a time (one item at least)."""
    backend = backends.load(backends.choose(call.coarse.device))
    step = max(1, SLICE_BYTES // (4 * call.classes))
    for start in range(0, call.items, step):
        part = call.part(start, min(start + step, call.items))
        yield backend.forward(part, parts=False).merged


def choose_top_k(*values: Any) -> tuple[Tensor, Tensor]:
    """Scores [N, K] and class indices [N, K]."""
    *shared, k = values
    call = make_call(ScoreArguments(*shared))
    scores = call.coarse.new_empty((call.items, min(k, call.classes)), dtype=torch.float32)
    classes = torch.empty_like(scores, dtype=torch.int64)
    start = 0
    for merged_NC in _slices(call):
        stop = start + merged_NC.shape[0]
        scores[start:stop], classes[start:stop] = selection.top_k(merged_NC, k)
        start = stop
    return scores, classes


_score_top_k = torch.library.custom_op("tai::score_top_k", choose_top_k, mutates_args=(), schema=_schema("int k", 2))


@_score_top_k.register_fake
def _(*values: Any) -> tuple[Tensor, Tensor]:
    *shared, k = values
    a = ScoreArguments(*shared)
    scores = a.coarse.new_empty((a.coarse.shape[0], min(k, a.class_global.shape[0])), dtype=torch.float32)
    return scores, torch.empty_like(scores, dtype=torch.int64)


def choose_above(*values: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [M], class indices [M], offsets [N + 1]."""
    *shared, thresholds = values
    call = make_call(ScoreArguments(*shared))
    kept: list[tuple[Tensor, ...]] = [selection.above(merged_NC, thresholds) for merged_NC in _slices(call)]
    kept.append((call.coarse.new_empty(0, dtype=torch.float32), *[call.coarse.new_empty(0, dtype=torch.int64)] * 2))
    scores, classes, counts = (torch.cat(column) for column in zip(*kept, strict=True))
    return scores, classes, torch.cat([counts.new_zeros(1), counts.cumsum(0)])


_score_above = torch.library.custom_op(
    "tai::score_above", choose_above, mutates_args=(), schema=_schema("Tensor thresholds", 3)
)


@_score_above.register_fake
def _(*values: Any) -> tuple[Tensor, Tensor, Tensor]:
    coarse = ScoreArguments(*values[: len(ScoreArguments._fields)]).coarse
    kept = torch.library.get_ctx().new_dynamic_size()
    return (
        coarse.new_empty((kept,), dtype=torch.float32),
        coarse.new_empty((kept,), dtype=torch.int64),
        coarse.new_empty((coarse.shape[0] + 1,), dtype=torch.int64),
    )
