"""Prompt tuning: a step of ours and of the published formulation, mining of hard negatives, and memory of many classes.

Both ways to take a step are held against each other first: same loss, same gradients.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tai_benchmarks.machine import environment, resolve_device
from tai_benchmarks.mining_problem import HARD, check_mining, mining_problem, plain_mining
from tai_benchmarks.peak_memory import NotMeasurableError, ask_new_process, process_peak_bytes
from tai_benchmarks.protocol import BenchRow, Candidate, Columns, Timing, Value, measure
from tai_benchmarks.tune_contenders import check_step, our_step, published_step
from tai_benchmarks.tune_problem import TowerSize, TuneProblem
from tai_engine.errors import UserError, unknown_choice
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import HardNegatives

BENCH = "tune"
CASES = ("step", "mining", "memory")
MEMORY_BOUND_BYTES = 8e9
_STEPS_PER_SAMPLE = 8

TABLE: Columns = {}


@dataclass(frozen=True)
class TuneConfig:
    """What to measure.

    Attributes:
        cases: names out of ``CASES``.
        classes: C of the step and of mining.
        sentences: B of the step.
        rounds: samples of each candidate; the baseline takes half a minute for one at full size.
        size: of the text tower.
        mined_sentences: sentences that are mined among.
        mined_dim: their D.
        memory_classes: C of the measurement of memory.
        memory_steps: steps of it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; memory is measured on the CPU alone.
        quick: a smaller problem within a minute; its ratio is not that of the full one.

    Raises:
        UserError: for an unknown case or a number below 1.
    """

    cases: tuple[str, ...] = CASES
    classes: int = 80
    sentences: int = 512
    rounds: int = 5
    size: TowerSize = field(default_factory=TowerSize)
    mined_sentences: int = 100_000
    mined_dim: int = 512
    memory_classes: int = 4585
    memory_steps: int = 3
    device: str = "cpu"
    quick: bool = False

    def __post_init__(self) -> None:
        for name in self.cases:
            if name not in CASES:
                raise unknown_choice("case", name, CASES)
        for name in ("classes", "sentences", "rounds", "mined_sentences", "memory_classes", "memory_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"The setting {name} is {getattr(self, name)}; give a number from 1.")


def configure(*, quick: bool, **wanted: Any) -> TuneConfig:
    """What was asked for; the rest as a full or a quick run has it."""
    defaults: dict[str, Any] = {}
    if quick:
        defaults = {"cases": CASES[:2], "classes": 20, "sentences": 32, "rounds": 3, "mined_sentences": 20_000}
    return TuneConfig(**(defaults | wanted), quick=quick)


def run(config: TuneConfig, remark: Callable[[str], None] = lambda _: None) -> Iterator[BenchRow]:
    """Measure every case and yield its rows.

    Args:
        config: what to measure.
        remark: told what is being measured and what was left out.

    Raises:
        UserError: for a device that is not there.
        WrongStepError: when our step or what we mine is wrong.
    """
    device = resolve_device(config.device)
    facts = environment(device) | {"quick": config.quick}
    if "step" in config.cases:
        yield from step_rows(config, device, facts, remark)
    if "mining" in config.cases:
        yield from mining_rows(config, device, facts, remark)
    if "memory" in config.cases and device.type != "cpu":
        remark("memory is left out: it is measured on the CPU alone")
    elif "memory" in config.cases:
        remark(f"memory of {config.memory_steps} steps of {config.memory_classes} classes: takes minutes")
        try:
            yield memory_row(config, facts)
        except NotMeasurableError as error:
            remark(f"memory is left out: {error}")


def seconds_row(
    case: str,
    classes: int,
    candidate: tuple[str, Timing],
    baseline: tuple[str, Timing],
    unit: str,
    extra: Mapping[str, Value],
) -> BenchRow:
    """The row of seconds an item; the ratio is that of the medians, above 1 where the candidate is the faster."""
    seconds, reference = (np.array(timing.seconds) / timing.items for _, timing in (candidate, baseline))
    return BenchRow(
        bench=BENCH,
        case=case,
        classes=classes,
        candidate=candidate[0],
        baseline=baseline[0],
        value=float(np.median(seconds)),
        unit=unit,
        p20=float(np.quantile(seconds, 0.2)),
        p80=float(np.quantile(seconds, 0.8)),
        ratio=float(np.median(reference) / np.median(seconds)),
        extra={"rounds": len(seconds), **extra},
    )


# A step


def step_rows(
    config: TuneConfig, device: torch.device, facts: Mapping[str, Value], remark: Callable[[str], None]
) -> Iterator[BenchRow]:
    """A whole step each: class vectors, scores, loss, gradients, update; ours with its features read from a store."""
    problem = TuneProblem(config.classes, config.sentences, config.size, device=device)
    remark(f"a step of {config.classes} classes and {config.sentences} sentences: checking it")
    error = check_step(problem)
    remark(f"gradients agree within {error:.1e}; measuring {config.rounds} rounds")
    tokens_NL, labels = problem.sentence_tokens(config.sentences), problem.labels(config.sentences)
    # A step of ours is over before whatever else the machine does has shown itself: a sample is several.
    times = {"published": 1, "tai": _STEPS_PER_SAMPLE}
    with tempfile.TemporaryDirectory() as folder:
        steps = {"published": published_step(problem, tokens_NL, labels), "tai": our_step(problem, Path(folder))}
        candidates = {name: Candidate(_repeated(step, times[name]), times[name]) for name, step in steps.items()}
        timings = measure(candidates, device, rounds=config.rounds)
    lengths_N = (tokens_NL != 0).sum(dim=1).float()
    extra: dict[str, Value] = {
        "sentences": config.sentences,
        "tokens_per_sentence": float(lengths_N.mean()),
        "tower_width": config.size.width,
        "tower_layers": config.size.layers,
        "dim": config.size.dim,
        "gradient_error": error,
        **facts,
    }
    for name in candidates:
        yield seconds_row(
            f"step/{config.sentences}-sentences",
            config.classes,
            (name, timings[name]),
            ("published", timings["published"]),
            "s/step",
            extra,
        )


def _repeated(step: Callable[[], object], times: int) -> Callable[[], object]:
    def run_all() -> None:
        for _ in range(times):
            step()

    return run_all


# Mining


def mining_rows(
    config: TuneConfig, device: torch.device, facts: Mapping[str, Value], remark: Callable[[str], None]
) -> Iterator[BenchRow]:
    """One refresh of hard negatives against one of plain torch: a product, a mask and a top-k over all sentences.

    The product alone (``gemm``) is what an exact search cannot do without.
    """
    vectors_MD, labels_MC, queries_CD = mining_problem(config.mined_sentences, config.mined_dim, config.classes)
    remark(f"mining for {config.classes} classes among {config.mined_sentences} sentences")
    strategy = HardNegatives(vectors_MD, Holders.from_dense(labels_MC), HARD, device.type)
    vectors_MD, labels_MC, queries_CD = (tensor.to(device) for tensor in (vectors_MD, labels_MC, queries_CD))
    check_mining(strategy, vectors_MD, labels_MC, queries_CD)
    refreshes = iter(range(1 << 62))
    candidates = {
        "gemm": Candidate(lambda: queries_CD @ vectors_MD.T, 1),
        "torch-topk": Candidate(lambda: plain_mining(strategy, vectors_MD, labels_MC, queries_CD), 1),
        "tai": Candidate(lambda: strategy.mine(queries_CD, next(refreshes)), 1),
    }
    timings = measure(candidates, device, rounds=max(config.rounds, 3 if config.quick else 15))
    extra: dict[str, Value] = {"dim": config.mined_dim, "per_class": HARD.per_class, **facts}
    for name in candidates:
        yield seconds_row(
            f"mining/{config.mined_sentences}-sentences",
            config.classes,
            (name, timings[name]),
            ("torch-topk", timings["torch-topk"]),
            "s/refresh",
            extra,
        )


# Memory


def memory_row(config: TuneConfig, facts: Mapping[str, Value], seconds: float = 3600.0) -> BenchRow:
    """Peak memory of a fresh process that takes some steps; the ratio is what is left of 8 GB.

    Raises:
        NotMeasurableError: on a system that does not tell, or when it takes longer than ``seconds``.
    """
    given = {
        "classes": config.memory_classes,
        "sentences": config.sentences,
        "steps": config.memory_steps,
        "size": list(config.size),
    }
    found = ask_new_process("tai_benchmarks.bench_tune", given, seconds)
    peak = found["peak_bytes"] / 1e9
    return BenchRow(
        bench="tune-memory",
        case=f"{config.memory_steps}-steps/{config.sentences}-sentences",
        classes=config.memory_classes,
        candidate="tai",
        baseline="8-gb",
        value=peak,
        unit="GB",
        p20=peak,
        p80=peak,
        ratio=MEMORY_BOUND_BYTES / found["peak_bytes"],
        extra={"seconds_per_step": found["seconds"] / config.memory_steps, **facts},
    )


def _main() -> None:
    """Read a problem as JSON from stdin, take its steps, write the peak of this process's memory to stdout."""
    import time

    given = json.load(sys.stdin)
    problem = TuneProblem(given["classes"], given["sentences"], TowerSize(*given["size"]))
    with tempfile.TemporaryDirectory() as folder:
        step = our_step(problem, Path(folder))
        begun = time.perf_counter()
        for _ in range(given["steps"]):
            step()
        seconds = time.perf_counter() - begun
    json.dump({"peak_bytes": process_peak_bytes(), "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    _main()
