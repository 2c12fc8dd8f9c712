"""What a call of a scoring op is given, what a backend is given of it, and what that gives back.

Shape legend: N items, T rows of all items together, L rows per item, D embedding size, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, get_type_hints

import torch
from torch import Tensor

from tai_kernels.scoring.bags import Bags, check_bags, dense_bags
from tai_kernels.scoring.pooling import check_pooling


class ScoreArguments(NamedTuple):
    """The arguments that all scoring ops share, in the order of their schemas; as ``ops.score`` describes them."""

    coarse: Tensor
    fine: Tensor
    offsets: Tensor | None
    class_global: Tensor
    class_local: Tensor
    fine_scales: Tensor | None
    pooling: str
    temperature: float
    scale: float
    mix: float
    empty_coarse: bool


_SCHEMA_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", str: "str", float: "float", bool: "bool"}
ARGUMENTS_SCHEMA = ", ".join(f"{_SCHEMA_TYPES[kind]} {name}" for name, kind in get_type_hints(ScoreArguments).items())
"""``ScoreArguments`` as ``torch.library`` spells them."""


@dataclass(frozen=True, eq=False)
class ScoreCall:
    """One checked call.

    Attributes:
        coarse: [N, D] fp32, bf16 or fp16.
        fine: [T, D] in one of those, or int8.
        bags: which rows belong to which item.
        class_global: [C, D] float.
        class_local: [C, D] float.
        fine_scales: [T] fp32 with int8 rows, else None.
        pooling: one of ``POOLING_MODES``.
        temperature: τ >= 0.
        scale: k > 0.
        mix: weight of the coarse score in the merged one.
    """

    coarse: Tensor
    fine: Tensor
    bags: Bags
    class_global: Tensor
    class_local: Tensor
    fine_scales: Tensor | None
    pooling: str
    temperature: float
    scale: float
    mix: float

    @property
    def items(self) -> int:
        """N."""
        return self.bags.items

    @property
    def classes(self) -> int:
        """C."""
        return int(self.class_global.shape[0])

    @property
    def dim(self) -> int:
        """D."""
        return int(self.class_global.shape[1])

    def part(self, start: int, stop: int) -> ScoreCall:
        """Items ``start:stop`` as a call of their own, sharing memory."""
        offsets = self.bags.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return replace(
            self,
            coarse=self.coarse[start:stop],
            fine=self.fine[first:last],
            bags=Bags(offsets - first, self.bags.rows_per_item),
            fine_scales=None if self.fine_scales is None else self.fine_scales[first:last],
        )


def make_call(arguments: ScoreArguments) -> ScoreCall:
    """The checked call; this reads the offsets.

    Raises:
        ValueError: for offsets that do not fit, or an item without rows unless ``empty_coarse``.
    """
    a = arguments
    bags = dense_bags(*a.fine.shape[:2]) if a.offsets is None else check_bags(a.offsets, a.fine.shape[0])
    empty_N = bags.empty_items()
    if not a.empty_coarse and bool(empty_N.any()):
        first = int(empty_N.nonzero()[0])
        raise ValueError(
            f"item {first} (of {int(empty_N.sum())} such) has no fine rows; "
            'score coarse-only items with empty="coarse" or score_coarse()'
        )
    return ScoreCall(
        coarse=a.coarse,
        fine=a.fine.reshape(-1, a.fine.shape[-1]),
        bags=bags,
        class_global=a.class_global,
        class_local=a.class_local,
        fine_scales=None if a.fine_scales is None else a.fine_scales.reshape(-1).float(),
        pooling=check_pooling(a.pooling),
        temperature=a.temperature,
        scale=a.scale,
        mix=a.mix,
    )


@dataclass(frozen=True, eq=False)
class ScoreResult:
    """Scores [N, C] fp32.

    Attributes:
        coarse: [N, C], or [0] when the parts were not asked for.
        fine: likewise.
        merged: [N, C].
        state: [N, C] pooling state for the gradient (``pooling.Pooled.state``), or [0] when it is not saved.
    """

    coarse: Tensor
    fine: Tensor
    merged: Tensor
    state: Tensor

    @staticmethod
    def allocate(call: ScoreCall, *, parts: bool, save: bool) -> ScoreResult:
        """Outputs to be filled in."""
        whole, device = (call.items, call.classes), call.coarse.device
        part = whole if parts else (0,)
        return ScoreResult(
            coarse=torch.empty(part, dtype=torch.float32, device=device),
            fine=torch.empty(part, dtype=torch.float32, device=device),
            merged=torch.empty(whole, dtype=torch.float32, device=device),
            state=torch.empty(whole if save else (0,), dtype=state_dtype(call.pooling), device=device),
        )


def state_dtype(pooling: str) -> torch.dtype:
    """Dtype of what the forward saves: log-sum-exp in fp32 for softmax, row positions in int32 for max."""
    return torch.int32 if pooling == "max" else torch.float32
