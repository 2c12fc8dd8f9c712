"""What a million pictures cost: hours of this machine's CPU as measured, and seconds of a GPU, computed and never
measured.

The GPU is an H100 SXM by its maker's data sheet: 989 Tflop/s of dense fp16 products and 3.35 TB/s of memory. Half of
the former is taken for encoding, the whole of the latter for reading features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tai_benchmarks.book_rows import of_case
from tai_benchmarks.protocol import BenchRow

PICTURES = 1_000_000
_GPU_FLOPS = 0.5 * 989e12
_GPU_BYTES = 3.35e12


@dataclass(frozen=True)
class StageCost:
    """One stage of the work on a million pictures.

    Attributes:
        stage: what is done.
        cpu_hours: of the whole machine.
        rate: pictures a second that this comes from.
        gpu_seconds: computed; None where a GPU does not do it.
        command: that measured the rate.
    """

    stage: str
    cpu_hours: float
    rate: float
    gpu_seconds: float | None
    command: str


def costs(rows: Mapping[str, list[BenchRow]]) -> list[StageCost]:
    """The stages that were measured."""
    found = []
    for case, stage in (("photos", "decode and encode, RN50, all that is stored"), ("rn50-224", "encode alone")):
        for row in of_case(rows, "encode", case):
            flops = float(row.extra["gflops_per_picture"] or 0) * 1e9
            found.append(_cost(stage, row, PICTURES * flops / _GPU_FLOPS, f"tai bench encode --cases {case}"))
    for row in of_case(rows, "cache", "re-tag"):
        size = float(row.extra.get("item_bytes") or 0)
        seconds = PICTURES * size / _GPU_BYTES if size else None
        found.append(_cost(f"tag from the cache, {row.classes} words", row, seconds, "tai bench cache --cases re-tag"))
    for row in of_case(rows, "score", "rn50-224/softmax/fp16"):
        if row.baseline == "published":
            size = 2.0 * float(row.extra["dim"] or 0) * (float(row.extra["rows_per_image"] or 0) + 1)
            flops = size * row.classes
            seconds = PICTURES * max(size / _GPU_BYTES, flops / _GPU_FLOPS)
            found.append(_cost(f"score alone, {row.classes:,} words", row, seconds, "tai bench score --cases rn50-224"))
    return found


def _cost(stage: str, row: BenchRow, gpu_seconds: float | None, command: str) -> StageCost:
    return StageCost(stage, PICTURES / row.value / 3600, row.value, gpu_seconds, command)
