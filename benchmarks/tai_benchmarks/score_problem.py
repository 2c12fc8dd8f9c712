"""One scoring problem of the benchmark: its size, its inputs in every dtype, and the fp64 truth about it.

Shape legend: N items, M checked items, L rows per item, T rows of all items, D embedding size, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tai_benchmarks.machine import DTYPES
from tai_benchmarks.published import published_scores
from tai_benchmarks.synthetic import RawFeatures, make_features, quantise
from tai_benchmarks.torch_variants import power_of_two_below
from tai_kernels.scoring.ops import Scores

TEMPERATURE, SCALE = 40.0, 4.0  # tau of images (VOC, COCO) and k, as published

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3, "int8": 2e-2}
"""Largest error against fp64 at each row dtype, as a share of the largest score."""

ROW_DTYPES = tuple(TOLERANCE)


@dataclass(frozen=True)
class Shape:
    """Fine rows per item and embedding size of an encoder at an input size."""

    rows: int
    dim: int


SHAPES = {
    "rn50-224": Shape(49, 1024),
    "rn50-448": Shape(196, 1024),
    "vit-b16-224": Shape(196, 512),
    "vit-b16-448": Shape(784, 512),
}

_FEWEST_ROWS = {"cpu": 512, "cuda": 8192}  # fewer would measure the class vectors
_MOST_ELEMENTS = {"cpu": 1 << 25, "cuda": 1 << 29}  # of the rows; beside fp32 twice they are held in each dtype


def plan_items(shape: Shape, classes: int, device_type: str, flops_per_second: float, seconds: float) -> int:
    """N: about ``seconds`` for one bare product, but enough rows to mean something, within memory.

    A power of two, so that chunks of powers of two divide it and ``torch.compile`` meets one shape.
    """
    affordable = int(flops_per_second * seconds / (2 * shape.rows * shape.dim * classes))
    fewest = -(-_FEWEST_ROWS[device_type] // shape.rows)
    fitting = _MOST_ELEMENTS[device_type] // (shape.rows * shape.dim)
    return min(max(power_of_two_below(affordable), power_of_two_below(2 * fewest - 1)), power_of_two_below(fitting))


@dataclass(frozen=True, eq=False)
class Inputs:
    """Unit-length vectors in one dtype.

    Attributes:
        coarse: [N, D]; fp16 where the fine rows are int8.
        fine: [N, L, D].
        class_global: [C, D]; fp32 for int8 rows.
        class_local: likewise.
        fine_scales: [T] fp32 for int8 rows, else None.
    """

    coarse: Tensor
    fine: Tensor
    class_global: Tensor
    class_local: Tensor
    fine_scales: Tensor | None = None

    def first(self, items: int) -> Inputs:
        """The first items alone, sharing memory; not for int8 rows."""
        return Inputs(self.coarse[:items], self.fine[:items], self.class_global, self.class_local)


class ScoreProblem:
    """Raw features, unit-length inputs by row dtype (made when first asked for), and the truth in fp64.

    Memory: the raw rows and, for every dtype that was asked for, a copy in it; fp32 stays for the others' sake.
    """

    def __init__(self, shape: Shape, items: int, classes: int, pooling: str, device: torch.device) -> None:
        self.shape, self.items, self.classes, self.pooling, self.device = shape, items, classes, pooling, device
        self.raw: RawFeatures = make_features(items, shape.rows, shape.dim, classes, device)
        self._inputs: dict[str, Inputs] = {}

    @property
    def flops(self) -> float:
        """Of the two products, coarse and fine."""
        return 2.0 * self.items * (self.shape.rows + 1) * self.shape.dim * self.classes

    def bytes_moved(self, row_dtype: str) -> float:
        """What any way of scoring has to move: rows and class vectors in, three score matrices out."""
        inputs = self.inputs(row_dtype)
        tensors = (inputs.coarse, inputs.fine, inputs.class_global, inputs.class_local)
        return float(sum(t.nbytes for t in tensors) + 3 * 4 * self.items * self.classes)

    def inputs(self, row_dtype: str) -> Inputs:
        """The inputs with fine rows in ``row_dtype``."""
        if row_dtype not in self._inputs:
            self._inputs[row_dtype] = self._prepare(row_dtype)
        return self._inputs[row_dtype]

    def _prepare(self, row_dtype: str) -> Inputs:
        if row_dtype == "fp32":
            raw = self.raw
            vectors = (raw.coarse, raw.fine, raw.class_global, raw.class_local)
            return Inputs(*(torch.nn.functional.normalize(v, dim=-1) for v in vectors))
        unit = self.inputs("fp32")
        if row_dtype == "int8":
            fine_NLD, scales_NL = quantise(unit.fine)
            classes = (unit.class_global, unit.class_local)
            return Inputs(unit.coarse.to(torch.float16), fine_NLD, *classes, scales_NL.flatten())
        dtype = DTYPES[row_dtype]
        vectors = (unit.coarse, unit.fine, unit.class_global, unit.class_local)
        return Inputs(*(v.to(dtype) for v in vectors))


class ExactScores:
    """The scores of some items by the published formulation in fp64, to judge candidates by.

    Attributes:
        items_M: [M] the items, rising: the first, the last and others evenly between. A candidate that does only the
            first few items is judged by those of them that it did.
    """

    def __init__(self, problem: ScoreProblem, flops: float) -> None:
        """Take as many items as ``flops`` operations allow, 2 to 64 (1 where there is only one)."""
        count = min(max(2, min(64, int(flops * problem.items / problem.flops))), problem.items)
        self.items_M = torch.linspace(0, problem.items - 1, count).round().to(torch.int64).unique().to(problem.device)
        raw = problem.raw
        parts = [
            published_scores(
                raw.coarse[item, None].double(),
                raw.fine[item, None].double(),
                raw.class_global.double(),
                raw.class_local.double(),
                temperature=TEMPERATURE,
                scale=SCALE,
                pooling=problem.pooling,
            )
            for item in self.items_M.tolist()
        ]
        self.scores = Scores(*(torch.cat(column) for column in zip(*parts, strict=True)))
        # A benchmark of zeros, or of one number, would time anything as right.
        if not float(self.scores.fine.std()) > 1e-3:
            raise ValueError("the problem's scores do not differ; it cannot tell a right candidate from a wrong one")

    def relative_error(self, scores: Scores) -> float:
        """Largest error of coarse, fine and merged as a share of the largest true score; inf for NaN.

        ``scores`` may be of the first items only.
        """
        done = int((self.items_M < scores.merged.shape[0]).sum())
        worst = 0.0
        for given, true in zip(scores, self.scores, strict=True):
            error = (given[self.items_M[:done]].double() - true[:done]).abs().max() / true.abs().max()
            worst = max(worst, float(error.nan_to_num(nan=float("inf"))))
        return worst

    def top_k_agreement(self, scores: Scores, k: int) -> float:
        """Share of the truth's best ``k`` classes of each item, by merged score, that are also the candidate's."""
        k = min(k, self.scores.merged.shape[1])
        done = int((self.items_M < scores.merged.shape[0]).sum())
        true_MK = self.scores.merged[:done].topk(k, dim=1).indices
        given_MK = scores.merged[self.items_M[:done]].topk(k, dim=1).indices
        return float((true_MK[:, :, None] == given_MK[:, None, :]).any(dim=2).double().mean())
