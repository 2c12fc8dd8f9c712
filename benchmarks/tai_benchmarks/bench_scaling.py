"""How time grows: tagging with the number of pictures, scoring with that of classes and of patches, mining with that of
sentences.

A curve has one candidate, ours; each row's ratio is its rate beside that of the curve's first point, so that 1 means
that an item costs the same however many there are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tai_benchmarks.cache_problem import random_prompts, write_store
from tai_benchmarks.machine import environment
from tai_benchmarks.mining_problem import mining_problem
from tai_benchmarks.protocol import BenchRow, Candidate, Columns, Timing, Value, measure, throughput_row
from tai_benchmarks.score_problem import SCALE, TEMPERATURE, ScoreProblem, Shape
from tai_engine.errors import UserError, unknown_choice
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.tag_selection import Selection
from tai_engine.tuning import NegativeConfig
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import HardNegatives
from tai_kernels.scoring import ops

BENCH = "scaling"
CASES = ("items", "classes", "patches", "sentences")
_QUICK_POINTS = 2
_ROUNDS, _FEWEST = 7, 3
_CLASSES, _ROWS, _DIM = 80, 49, 1024
_SCORED_ROWS = 3136
_STORED_ROWS, _STORED_DIM = 4, 64
_MINED_DIM = 512
_TAGS = 5

TABLE: Columns = {}


@dataclass(frozen=True)
class ScalingConfig:
    """What to measure.

    Attributes:
        cases: names out of ``CASES``.
        items: sizes of the tagged stores, of small features: what is measured is all but the products.
        classes: of the scored vocabularies, with RN50's shapes.
        patches: rows of a scored picture, with 80 classes; as many rows altogether.
        sentences: among which hard negatives are found for 80 classes.
        rounds: samples of each point.

    Raises:
        UserError: for an unknown case or fewer than three rounds.
    """

    cases: tuple[str, ...] = CASES
    items: tuple[int, ...] = (1_000, 10_000, 100_000)
    classes: tuple[int, ...] = (20, 80, 320, 1_280, 5_120)
    patches: tuple[int, ...] = (1, 49, 196, 784)
    sentences: tuple[int, ...] = (1_000, 10_000, 100_000)
    rounds: int = _ROUNDS

    def __post_init__(self) -> None:
        for name in self.cases:
            if name not in CASES:
                raise unknown_choice("case", name, CASES)
        if self.rounds < _FEWEST:
            raise UserError(f"The setting rounds is {self.rounds}; give a number from {_FEWEST}.")


def configure(*, quick: bool, **wanted: Any) -> ScalingConfig:
    """What was asked for; the rest as a full run has it, or in a quick one the first points of each curve."""
    if not quick:
        return ScalingConfig(**wanted)
    whole = ScalingConfig()
    points = {name: getattr(whole, name)[:_QUICK_POINTS] for name in CASES}
    return ScalingConfig(**({"rounds": _FEWEST, **points} | wanted))


def run(config: ScalingConfig, remark: Callable[[str], None] = lambda _: None) -> Iterator[BenchRow]:
    """Measure every curve on the CPU and yield its points.

    Memory: a store's group, the scored rows in fp32 and fp16, or the sentences' vectors (200 MB of 100,000).

    Args:
        config: what to measure.
        remark: told what is being measured.
    """
    facts = environment(torch.device("cpu"))
    curves = {"items": _items, "classes": _classes, "patches": _patches, "sentences": _sentences}
    for case in config.cases:
        first: tuple[str, Timing] | None = None
        for point in getattr(config, case):
            remark(f"{case}: {point:,}")
            unit, classes, candidate, close = curves[case](point)
            try:
                timing = measure({"tai": candidate}, torch.device("cpu"), rounds=config.rounds)["tai"]
            finally:
                close()
            first = first or ("tai", timing)
            extra: Mapping[str, Value] = {"point": point, **facts}
            named = ("first-point", first[1])
            yield throughput_row(BENCH, f"{case}/{point}", classes, ("tai", timing), named, unit, extra)


Curve = tuple[str, int, Candidate, Callable[[], object]]
"""Unit, number of classes, what is timed, and what cleans up after it."""


def _items(count: int) -> Curve:
    folder = tempfile.TemporaryDirectory()
    store = write_store(Path(folder.name) / "store", count, _STORED_ROWS, _STORED_DIM)
    prompts, out = random_prompts(_CLASSES, _STORED_DIM), Path(folder.name) / "tags.parquet"
    work = Candidate(lambda: tag_store(store, prompts, out, selection=Selection(top_k=_TAGS), device="cpu"), count)
    return "pictures/s", _CLASSES, work, folder.cleanup


def _classes(count: int) -> Curve:
    return ("pictures/s", count, _scoring(Shape(_ROWS, _DIM), count), _nothing)


def _patches(count: int) -> Curve:
    return ("pictures/s", _CLASSES, _scoring(Shape(count, _DIM), _CLASSES), _nothing)


def _scoring(shape: Shape, classes: int) -> Candidate:
    problem = ScoreProblem(shape, max(1, _SCORED_ROWS // shape.rows), classes, "softmax", torch.device("cpu"))
    given = problem.inputs("fp16")
    vectors = (given.class_global.float(), given.class_local.float())

    def work() -> object:
        with torch.inference_mode():
            return ops.score(given.coarse, given.fine, None, *vectors, temperature=TEMPERATURE, scale=SCALE)

    return Candidate(work, problem.items)


def _sentences(count: int) -> Curve:
    vectors_MD, labels_MC, queries_CD = mining_problem(count, _MINED_DIM, _CLASSES)
    strategy = HardNegatives(vectors_MD, Holders.from_dense(labels_MC), NegativeConfig(strategy="hard"), "cpu")
    refreshes = iter(range(1 << 62))
    work = Candidate(lambda: strategy.mine(queries_CD, next(refreshes)), count)
    return "sentences/s", _CLASSES, work, _nothing


def _nothing() -> None:
    return None
