"""Encoding pictures: ours beside the loop that users of open_clip write, on the same batch of the same random model.

The candidates, in one process and in turn:

- ``open_clip``: ``model.encode_image`` in fp32 and the division by the length; CLIP's own vector of each picture;
- ``tai-exact``: ours with ``fast=False``; all that is stored: TaI-DPT's vector, CLIP's own and those of all patches;
- ``tai-coarse``: ours, fast, without patches and CLIP's own vector alone: the same result as the baseline;
- ``tai``: ours, fast, all that is stored.

In the cases of tensors all get the same preprocessed pictures in memory; ``photos`` begins at JPEG files, which each
candidate decodes in its own way, in this process. Features are held against the exact ones before anything is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tai_benchmarks.cache_problem import find_pictures
from tai_benchmarks.encode_contest import BASELINE, COMPUTES, EncodeContest
from tai_benchmarks.machine import Limits, environment, probes, resolve_device
from tai_benchmarks.protocol import QUICK_ROUNDS, ROUNDS, BenchRow, Candidate, Columns, Value, measure, throughput_row
from tai_benchmarks.tables import percent
from tai_engine.errors import UserError, unknown_choice

BENCH = "encode"
MODELS = {"rn50-224": "RN50-quickgelu", "vit-b32-224": "ViT-B-32-quickgelu", "vit-b16-224": "ViT-B-16-quickgelu"}
PHOTOS = "photos"
CASES = (*MODELS, PHOTOS)
_PHOTO_MODEL = "RN50-quickgelu"

TABLE: Columns = {
    "computes": lambda row: row.extra["computes"],
    "gemm": lambda row: percent(row.extra["share_of_gemm"]),
    "cosine": lambda row: f"{row.extra['cosine']:.7f}",
}
"""For people. ``gemm``: share of this machine's own rate, by the operations of open_clip."""


@dataclass(frozen=True)
class EncodeConfig:
    """What to measure.

    Attributes:
        cases: names out of ``CASES``.
        batch: pictures of one call.
        rounds: samples of each candidate.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        quick: fewer cases, pictures and rounds.

    Raises:
        UserError: for an unknown case or a number below 1.
    """

    cases: tuple[str, ...] = CASES
    batch: int = 32
    rounds: int = ROUNDS
    device: str = "auto"
    quick: bool = False

    def __post_init__(self) -> None:
        for name in self.cases:
            if name not in CASES:
                raise unknown_choice("case", name, CASES)
        for name in ("batch", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"The setting {name} is {getattr(self, name)}; give a number from 1.")


def configure(*, quick: bool, **wanted: Any) -> EncodeConfig:
    """What was asked for; the rest as a full or a quick run has it."""
    defaults: dict[str, Any] = {}
    if quick:
        defaults = {"cases": ("rn50-224",), "batch": 8, "rounds": QUICK_ROUNDS}
    return EncodeConfig(**(defaults | wanted), quick=quick)


def run(config: EncodeConfig, remark: Callable[[str], None] = lambda _: None) -> Iterator[BenchRow]:
    """Measure every case and yield its rows.

    Args:
        config: what to measure.
        remark: told what is being measured.

    Raises:
        UserError: for a device that is not there.
        WrongFeaturesError: when our features are wrong.
    """
    device = resolve_device(config.device)
    facts = environment(device) | {"quick": config.quick}
    for case in config.cases:
        remark(f"{case}, {config.batch} pictures at a time: making the model")
        contest = EncodeContest(MODELS.get(case, _PHOTO_MODEL), config.batch, device)
        if case == PHOTOS:
            with tempfile.TemporaryDirectory() as folder:
                paths, kind = find_pictures(Path(folder), config.batch)
                works = contest.on_files(paths)
                yield from rows_of(contest, case, works, len(paths), config.rounds, facts | {"pictures": kind}, remark)
        else:
            works = contest.on_tensors()
            kinds: dict[str, Value] = {"pictures": "synthetic"}
            yield from rows_of(contest, case, works, config.batch, config.rounds, facts | kinds, remark)


def rows_of(
    contest: EncodeContest,
    case: str,
    works: Mapping[str, Callable[[], object]],
    pictures: int,
    rounds: int,
    facts: Mapping[str, Value],
    remark: Callable[[str], None],
) -> Iterator[BenchRow]:
    """The rows of one case, each against the baseline."""
    cosines = contest.check()
    remark(f"{case}: features checked; measuring {rounds} rounds")
    flops = contest.flops_per_picture()
    candidates = {name: Candidate(work, pictures) for name, work in works.items()}
    timings = measure(probes(contest.device) | candidates, contest.device, rounds=rounds)
    limits = Limits.of(timings)
    for name in works:
        precision = contest.precision_of(name)
        extra: dict[str, Value] = {
            "computes": COMPUTES[name],
            "precision": precision,
            "share_of_gemm": flops * timings[name].throughput() / limits.gemm_for(precision),
            "cosine": cosines[name],
            "cosine_error": 1 - cosines[name],
            "gflops_per_picture": flops / 1e9,
            "weights": "random",
            **limits.as_fields(),
            **facts,
        }
        label = f"{case}/batch-{pictures}"
        yield throughput_row(BENCH, label, 0, (name, timings[name]), (BASELINE, timings[BASELINE]), "images/s", extra)
