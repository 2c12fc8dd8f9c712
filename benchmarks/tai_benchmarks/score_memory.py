"""Memory of scoring: what a call needs beside inputs and outputs at two sizes, ours and the published formulation's.

A way of scoring that writes the similarities out needs more for more items; one that does not needs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from tai_benchmarks.peak_memory import MemoryProblem, measure, measure_in_new_process
from tai_benchmarks.protocol import BenchRow, Value
from tai_benchmarks.score_problem import SHAPES

BENCH = "score-memory"
CASE = "vit-b16-224"
CLASSES = 4585
ITEMS = {"cpu": (4, 16), "cuda": (128, 512)}
_PAGE = 4096


def memory_rows(
    device: torch.device, pooling: str, row_dtypes: Sequence[str], facts: Mapping[str, Value], seconds: float = 600.0
) -> Iterator[BenchRow]:
    """A row for ``published`` and one for each row dtype of ours: MB beside inputs and outputs at the larger size.

    ``growth_per_similarity`` is the share of the growth: bytes more per similarity more, 4 for one fp32 copy of them.

    Raises:
        NotMeasurableError: on a system that does not tell, or when it takes longer than ``seconds``.
    """
    sizes, shape = ITEMS[device.type], SHAPES[CASE]
    contenders = [("published", "fp32"), *(("tai", dtype) for dtype in row_dtypes)]
    problems = [
        MemoryProblem(name, shape.rows, shape.dim, items, CLASSES, pooling, dtype, str(device))
        for name, dtype in contenders
        for items in sizes
    ]
    on_gpu = device.type == "cuda"
    found = [measure(problem) for problem in problems] if on_gpu else measure_in_new_process(problems, seconds)
    similarities = [items * shape.rows * CLASSES for items in sizes]
    for (name, dtype), small, large in zip(contenders, found[::2], found[1::2], strict=True):
        yield BenchRow(
            bench=BENCH,
            case=f"{CASE}/{pooling}/{dtype}",
            classes=CLASSES,
            candidate=name,
            baseline="published",
            value=large / 1e6,
            unit="MB",
            p20=large / 1e6,
            p80=large / 1e6,
            ratio=found[1] / max(large, _PAGE),
            extra={
                "images": sizes[1],
                "similarities_mb": 4 * similarities[1] / 1e6,
                "images_smaller": sizes[0],
                "value_smaller": small / 1e6,
                "growth_per_similarity": (large - small) / (similarities[1] - similarities[0]),
                **facts,
            },
        )
