"""The only door to the scoring kernels.

Every function works under ``torch.compile``. Rows and class vectors are of unit length and are never renormalised. Rows
are fp32, bf16, fp16, or (fine rows only) int8 with a scale per row; scores are fp32. No [N, L, C] tensor is written,
and ``score_top_k`` and ``score_above`` hold a slice of the [N, C] scores only.

Shape legend: N items, T rows of all items together, L rows per item, D embedding size, C classes, K and M kept scores.
"""

from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor

from tai_kernels.scoring import library
from tai_kernels.scoring.backends import BackendStatus, describe_backends
from tai_kernels.scoring.bags import check_bags
from tai_kernels.scoring.call import ScoreArguments
from tai_kernels.scoring.checks import check_classes, check_rows, check_scales, check_settings, check_tensors
from tai_kernels.scoring.pooling import POOLING_MODES
from tai_kernels.scoring.reference import Scores

__all__ = [
    "POOLING_MODES",
    "BackendStatus",
    "Scores",
    "Settings",
    "describe_backends",
    "patch_similarities",
    "score",
    "score_above",
    "score_coarse",
    "score_top_k",
]


class Settings(TypedDict, total=False):
    """How fine rows become scores: the keyword arguments that ``score`` and its sparse forms share.

    Attributes:
        pooling: one of ``POOLING_MODES``; default ``"softmax"``.
        temperature: τ >= 0 of the softmax; not used by max.
        scale: k > 0, multiplies both scores; default 4.
        mix: weight of the coarse score, in [0, 1]; default 0.5.
        empty: what to do with an item that has no rows: ``"error"`` (the default), or ``"coarse"`` (its fine score is
            its coarse score).
        fine_scales: [T] (or [N, L]) fp32: an int8 row times its scale is the row.
    """

    pooling: str
    temperature: Required[float]
    scale: float
    mix: float
    empty: str
    fine_scales: Tensor | None


def _arguments(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    *,
    pooling: str = "softmax",
    temperature: float,
    scale: float = 4.0,
    mix: float = 0.5,
    empty: str = "error",
    fine_scales: Tensor | None = None,
) -> ScoreArguments:
    """What the ops take, checked but for the values of ``offsets``, which the ops read."""
    check_tensors(coarse, fine, offsets, class_global, class_local, fine_scales)
    check_settings(pooling, temperature, scale, mix, empty)
    numbers = (float(temperature), float(scale), float(mix))
    return ScoreArguments(
        coarse, fine, offsets, class_global, class_local, fine_scales, pooling, *numbers, empty == "coarse"
    )


def _is_plain(arguments: ScoreArguments) -> bool:
    """Whether nobody compiles, traces or differentiates the call: the op's function can be called without the op."""
    return (
        not torch.compiler.is_compiling()  # first, for a compiler cannot look at the next
        and torch.is_inference_mode_enabled()
        and all(type(value) is Tensor for value in arguments if isinstance(value, Tensor))
    )


def score(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    **settings: Unpack[Settings],
) -> Scores:
    """Coarse, fine and merged scores of every item and class, in one pass over the rows.

    ``coarse = k·g·Tgᵀ``, ``fine = k·pool over the item's rows of p·Tlᵀ``, ``merged = mix·coarse + (1 − mix)·fine``
    (TaI-DPT, arXiv 2211.12739). Differentiable w.r.t. ``class_global`` and ``class_local``.

    Args:
        coarse: [N, D].
        fine: packed [T, D], or dense [N, L, D] with ``offsets=None``.
        offsets: [N + 1] int64; on the CPU they cost a GPU no wait.
        class_global: [C, D] float, for the coarse score.
        class_local: [C, D] float, for the fine score.
        **settings: see ``Settings``.

    Returns:
        ``Scores`` of three [N, C] fp32 tensors.

    Raises:
        ValueError: for shapes, dtypes, devices or settings that do not fit, and for an item without rows.
        NotImplementedError: when a gradient w.r.t. rows is wanted.
        RuntimeError: when ``TAI_KERNEL`` forces a backend that cannot run here.
    """
    arguments = _arguments(coarse, fine, offsets, class_global, class_local, **settings)
    wants_grad = torch.is_grad_enabled()
    if wants_grad and (coarse.requires_grad or fine.requires_grad):
        raise NotImplementedError("the gradient w.r.t. rows is not implemented; detach() coarse and fine")
    save = wants_grad and (class_global.requires_grad or class_local.requires_grad)
    run = library.compute_scores if _is_plain(arguments) else torch.ops.tai.score
    coarse_NC, fine_NC, merged_NC, _ = run(*arguments, save)
    return Scores(coarse_NC, fine_NC, merged_NC)


def score_coarse(coarse: Tensor, class_global: Tensor, *, scale: float = 4.0) -> Tensor:
    """``k·g·Tgᵀ`` alone: [N, C] fp32, differentiable w.r.t. ``class_global``. For zero-shot CLIP and coarse-only items.

    Raises:
        ValueError: for shapes, dtypes or devices that do not fit.
        NotImplementedError: when a gradient w.r.t. rows is wanted.
    """
    check_rows("coarse", coarse, class_global, allow_int8=False)
    check_classes(class_global=class_global)
    if torch.is_grad_enabled() and coarse.requires_grad:
        raise NotImplementedError("the gradient w.r.t. rows is not implemented; detach() coarse")
    # A plain product in fp32: there is nothing to fuse, and torch differentiates it.
    with torch.autocast(coarse.device.type, enabled=False):
        return scale * (coarse.float() @ class_global.float().T)


def score_top_k(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    *,
    k: int,
    **settings: Unpack[Settings],
) -> tuple[Tensor, Tensor]:
    """The ``min(k, C)`` best merged scores of each item, best first, equal scores in class order. No gradient.

    Arguments and errors as in ``score``; holds at most 32 MiB of scores (one item's, if those are more) at a time.

    Returns:
        scores [N, K] fp32, class indices [N, K] int64.
    """
    arguments = _arguments(coarse, fine, offsets, class_global, class_local, **settings)
    if k < 1:
        raise ValueError(f"k is {k}, expected 1 or more")
    run = library.choose_top_k if _is_plain(arguments) else torch.ops.tai.score_top_k
    return run(*arguments, k)


def score_above(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    *,
    thresholds: Tensor,
    **settings: Unpack[Settings],
) -> tuple[Tensor, Tensor, Tensor]:
    """The merged scores that reach their class's threshold, best first per item, equal ones in class order.

    There is no gradient. Arguments, errors and memory as in ``score_top_k``; ``thresholds`` is [C] (infinite: never or
    always).

    Returns:
        scores [M] fp32, class indices [M] int64, offsets [N + 1] int64 into both.
    """
    arguments = _arguments(coarse, fine, offsets, class_global, class_local, **settings)
    if thresholds.shape != (class_global.shape[0],):
        raise ValueError(f"thresholds have shape {tuple(thresholds.shape)}, expected one per class: [C]")
    run = library.choose_above if _is_plain(arguments) else torch.ops.tai.score_above
    return run(*arguments, thresholds.to(device=coarse.device, dtype=torch.float32))


def patch_similarities(
    fine: Tensor,
    offsets: Tensor | None,
    class_local: Tensor,
    class_indices: Tensor,
    *,
    fine_scales: Tensor | None = None,
) -> Tensor:
    """Cosine of every row with a few chosen classes, for heatmaps: [T, K] fp32 (dense [N, L, D] rows: [N, L, K]).

    Args:
        fine: [T, D], or [N, L, D] with ``offsets=None``.
        offsets: [N + 1] int64; checked only, rows come back in their order.
        class_local: [C, D] float.
        class_indices: [K] int64, each in [0, C).
        fine_scales: as in ``score``.

    Raises:
        ValueError: for shapes, dtypes, devices or class indices that do not fit.
    """
    check_rows("fine", fine, class_local, allow_int8=True)
    check_classes(class_local=class_local)
    check_scales(fine, fine_scales)
    if (offsets is None) != (fine.ndim == 3):
        raise ValueError("fine is packed [T, D] with offsets, or dense [N, L, D] without")
    if offsets is not None:
        check_bags(offsets, fine.shape[0])
    classes = class_local.shape[0]
    if class_indices.numel() and not 0 <= int(class_indices.min()) <= int(class_indices.max()) < classes:
        raise ValueError(f"class_indices must lie in 0..{classes - 1}")
    chosen_KD = class_local[class_indices.to(class_local.device)].float()
    with torch.autocast(fine.device.type, enabled=False):
        similarities = fine.float() @ chosen_KD.T
    return similarities if fine_scales is None else similarities * fine_scales.float()[..., None]
