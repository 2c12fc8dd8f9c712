"""Scoring: ours, the published formulation and the fastest torch, side by side at every size that matters.

One set (encoder shape, classes, pooling) is measured at a time: all candidates of all row dtypes and the machine's own
copy and product rates take turns. Every candidate is checked against fp64 first, and one that is wrong is not timed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tai_benchmarks.machine import Limits, environment, probes, resolve_device
from tai_benchmarks.peak_memory import NotMeasurableError
from tai_benchmarks.protocol import (
    QUICK_ROUNDS,
    ROUNDS,
    BenchRow,
    Candidate,
    Columns,
    Timing,
    Value,
    measure,
    throughput_row,
)
from tai_benchmarks.score_contenders import TOP_K, Contender, Fp64Agreement, Remark, check, contenders
from tai_benchmarks.score_memory import memory_rows
from tai_benchmarks.score_problem import ROW_DTYPES, SHAPES, ExactScores, ScoreProblem, plan_items
from tai_benchmarks.tables import percent
from tai_engine.errors import UserError, unknown_choice
from tai_kernels.scoring import ops

BENCH = "score"
CLASSES = (20, 80, 1203, 4585, 20000)
QUICK_CLASSES = (20, 80, 4585)
QUICK_CASES = ("rn50-224",)

_CALL_SECONDS, _QUICK_CALL_SECONDS = 0.1, 0.04  # of one bare product, by which N is chosen
_QUICK_SECONDS, _QUICK_MEMORY_SECONDS = 24.0, 14.0  # the rest of the minute is for starting up
_CHECK_FLOPS = {"cpu": 4e9, "cuda": 4e11}


TABLE: Columns = {
    "copy": lambda row: percent(row.extra.get("share_of_bandwidth")),
    "gemm": lambda row: percent(row.extra.get("share_of_gemm")),
    f"top {TOP_K}": lambda row: percent(row.extra.get("top_k_agreement")),
}
"""For people. ``copy`` and ``gemm``: share of this machine's own rates; the last: agreement with fp64."""


@dataclass(frozen=True)
class ScoreConfig:
    """What to measure.

    Attributes:
        cases: names out of ``SHAPES``.
        classes: C of each set.
        poolings: modes out of ``ops.POOLING_MODES``.
        row_dtypes: of ours, out of ``ROW_DTYPES``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        rounds: samples of each candidate.
        quick: smaller problems, no ``torch.compile``, and fewer rounds when time runs out.

    Raises:
        UserError: for an unknown name or a number out of range.
    """

    cases: tuple[str, ...] = tuple(SHAPES)
    classes: tuple[int, ...] = CLASSES
    poolings: tuple[str, ...] = ops.POOLING_MODES
    row_dtypes: tuple[str, ...] = ROW_DTYPES
    device: str = "auto"
    rounds: int = ROUNDS
    quick: bool = False

    def __post_init__(self) -> None:
        for what, given, allowed in (
            ("case", self.cases, tuple(SHAPES)),
            ("pooling", self.poolings, ops.POOLING_MODES),
            ("row dtype", self.row_dtypes, ROW_DTYPES),
        ):
            for name in given:
                if name not in allowed:
                    raise unknown_choice(what, name, allowed)
        if not all(count >= 1 for count in self.classes):
            raise UserError(f"The numbers of classes are {self.classes}; each must be 1 or more.")
        if self.rounds < (1 if self.quick else ROUNDS):
            raise UserError(f"The rounds are {self.rounds}; a full run takes {ROUNDS} or more, a quick one 1 or more.")


def configure(*, quick: bool, **wanted: Any) -> ScoreConfig:
    """What was asked for; the rest as a full or a quick run has it."""
    defaults: dict[str, Any] = {}
    if quick:
        defaults = {"cases": QUICK_CASES, "classes": QUICK_CLASSES, "poolings": ("softmax",), "rounds": QUICK_ROUNDS}
    return ScoreConfig(**(defaults | wanted), quick=quick)


def run(config: ScoreConfig, remark: Remark = lambda _: None) -> Iterator[BenchRow]:
    """Measure every set and yield its rows: each candidate against ``published``, ours also against ``fastest-torch``.

    Last come the rows of memory (``score_memory``).

    Args:
        config: what to measure.
        remark: told what is being measured and what was left out.

    Raises:
        UserError: for a device that is not there.
        WrongResultError: when our own scores are wrong.
    """
    device = resolve_device(config.device)
    machine = probes(device)
    rate = Limits.of(measure(machine, device, rounds=3)).gemm_for("fp32")
    facts = environment(device) | {"backend": backend_in_use(device), "quick": config.quick}
    sets = list(itertools.product(config.cases, config.classes, config.poolings))
    end = time.monotonic() + (_QUICK_SECONDS if config.quick else float("inf"))
    if config.quick:
        remark("a quick run leaves out torch.compile and dtypes that this machine has no hardware for")
    for number, (case, classes, pooling) in enumerate(sets):
        set_end = time.monotonic() + max(0.0, end - time.monotonic()) / (len(sets) - number)
        seconds = _QUICK_CALL_SECONDS if config.quick else _CALL_SECONDS
        items = plan_items(SHAPES[case], classes, device.type, rate, seconds)
        remark(f"{case}, {classes} classes, {pooling}: {items} images")
        problem = ScoreProblem(SHAPES[case], items, classes, pooling, device)
        judged = check(
            contenders(problem, config.row_dtypes, config.quick),
            ExactScores(problem, _CHECK_FLOPS[device.type]),
            remark,
        )
        candidates = {c.label: Candidate(c.run, c.items) for c in judged}
        timings = measure(machine | candidates, device, rounds=config.rounds, seconds=set_end - time.monotonic())
        yield from rows_of_set(f"{case}/{pooling}", problem, judged, timings, facts)
        torch.compiler.reset()  # else the compiler takes the next shapes for more of the same and makes them dynamic
    seconds = max(1.0, end - time.monotonic() + _QUICK_MEMORY_SECONDS) if config.quick else 600.0
    remark("memory beside inputs and outputs")
    try:
        dtypes = config.row_dtypes[-1:] if config.quick else config.row_dtypes
        yield from memory_rows(device, config.poolings[0], dtypes, facts, seconds)
    except NotMeasurableError as error:
        remark(f"memory is left out: {error}")


def backend_in_use(device: torch.device) -> str:
    """The backend that serves ``device``, as ``TAI_KERNEL`` spells it."""
    return next(status.name for status in ops.describe_backends() if device.type in status.in_use)


def rows_of_set(
    case: str,
    problem: ScoreProblem,
    judged: dict[Contender, Fp64Agreement],
    timings: dict[str, Timing],
    facts: dict[str, Value],
) -> Iterator[BenchRow]:
    """The rows of one set: every contender against ``published``, ours also against the fastest torch variant.

    fp32 rows are held against torch in fp32; the narrower dtypes against torch in any dtype.
    """
    limits = Limits.of(timings)
    published = ("published", timings["published/fp32"])
    for contender, verdict in judged.items():
        timing = timings[contender.label]
        work_rate = timing.throughput() / problem.items
        extra: dict[str, Value] = {
            "row_dtype": contender.row_dtype,
            "share_of_bandwidth": problem.bytes_moved(contender.row_dtype) * work_rate / limits.copy_bytes_per_second,
            "share_of_gemm": problem.flops * work_rate / limits.gemm_for(contender.row_dtype),
            "relative_error": verdict.relative_error,
            "top_k_agreement": verdict.top_k_agreement,
            "top_k": TOP_K,
            "images": contender.items,
            "rows_per_image": problem.shape.rows,
            "dim": problem.shape.dim,
            "class_vectors": problem.raw.class_source,
            "native_dtype": contender.native,
            **limits.as_fields(),
            **facts,
        }
        own = (f"{case}/{contender.row_dtype}", problem.classes, (contender.name, timing))
        yield throughput_row(BENCH, *own, published, "images/s", extra)
        if contender.name == "tai":
            fastest = _fastest_torch(judged, timings, contender.row_dtype)
            rival = ("fastest-torch", timings[fastest.label])
            yield throughput_row(BENCH, *own, rival, "images/s", extra | {"fastest_torch": fastest.label})


def _fastest_torch(judged: dict[Contender, Fp64Agreement], timings: dict[str, Timing], row_dtype: str) -> Contender:
    rivals = [c for c in judged if c.name.startswith("torch-") and (row_dtype != "fp32" or c.row_dtype == "fp32")]
    return max(rivals, key=lambda c: timings[c.label].throughput())
