"""Scores of items for classes: all of them, or those that were kept.

Shape legend: N items, C classes, M scores that were kept, K scores kept per item.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ScoreBatch:
    """Scores of every class for every item.

    Attributes:
        ids: N names.
        class_names: C names.
        scores: [N, C] fp32, no NaN.

    Raises:
        ValueError: for a shape or dtype that does not fit, or NaN.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    scores: Tensor

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.ids), len(self.class_names)) or self.scores.dtype != torch.float32:
            raise ValueError(
                f"scores are {self.scores.dtype} {tuple(self.scores.shape)}, "
                f"expected float32 ({len(self.ids)}, {len(self.class_names)})"
            )
        if bool(self.scores.isnan().any()):
            raise ValueError("scores hold NaN")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class SparseScoreBatch:
    """The scores that were kept: item ``n`` owns entries ``offsets[n]:offsets[n+1]``, best first.

    Attributes:
        ids: N names.
        class_names: C names.
        class_indices: [M] int64 into ``class_names``.
        scores: [M] fp32.
        offsets: [N + 1] int64.

    Raises:
        ValueError: for shapes, offsets or indices that do not fit.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    class_indices: Tensor
    scores: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        m = self.scores.shape[0]
        if self.scores.shape != (m,) or self.class_indices.shape != (m,) or self.offsets.shape != (len(self.ids) + 1,):
            raise ValueError("scores, class_indices and offsets do not fit together")
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != m or bool((self.offsets.diff() < 0).any()):
            raise ValueError(f"offsets must rise from 0 to {m}, the number of scores")
        if m and not 0 <= int(self.class_indices.min()) <= int(self.class_indices.max()) < len(self.class_names):
            raise ValueError(f"class_indices reach outside the {len(self.class_names)} classes")

    def __len__(self) -> int:
        return len(self.ids)
