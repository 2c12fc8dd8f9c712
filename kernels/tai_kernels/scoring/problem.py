"""What a scoring backend is given and what it gives back; checked once, in ``ops``.

Shape legend: N items, T rows of all items together, D embedding size, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tai_kernels.scoring.bags import Bags


@dataclass(frozen=True, eq=False)
class Problem:
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

    def part(self, start: int, stop: int) -> Problem:
        """Items ``start:stop`` as a problem of their own, sharing memory."""
        offsets = self.bags.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return replace(
            self,
            coarse=self.coarse[start:stop],
            fine=self.fine[first:last],
            bags=Bags(offsets - first, self.bags.rows_per_item),
            fine_scales=None if self.fine_scales is None else self.fine_scales[first:last],
        )


@dataclass(frozen=True, eq=False)
class Result:
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
    def allocate(problem: Problem, *, parts: bool, save: bool) -> Result:
        """Outputs to be filled in."""
        whole, device = (problem.items, problem.classes), problem.coarse.device
        part = whole if parts else (0,)
        return Result(
            coarse=torch.empty(part, dtype=torch.float32, device=device),
            fine=torch.empty(part, dtype=torch.float32, device=device),
            merged=torch.empty(whole, dtype=torch.float32, device=device),
            state=torch.empty(whole if save else (0,), dtype=state_dtype(problem.pooling), device=device),
        )


def state_dtype(pooling: str) -> torch.dtype:
    """Dtype of what the forward saves: log-sum-exp in fp32 for softmax, row positions in int32 for max."""
    return torch.int32 if pooling == "max" else torch.float32
