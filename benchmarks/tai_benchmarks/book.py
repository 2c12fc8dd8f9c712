"""The benchmark book: everything measured on one machine, as a page that is written anew by ``tai bench all``."""

from __future__ import annotations

import datetime
import importlib
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from tai_benchmarks.book_costs import costs
from tai_benchmarks.book_plots import draw_plots
from tai_benchmarks.book_rows import newest_rows
from tai_benchmarks.book_targets import SpeedTarget, targets
from tai_benchmarks.machine import device_name, environment, slug
from tai_benchmarks.protocol import BenchRow, Columns, Value
from tai_benchmarks.steps import TAI, Step
from tai_benchmarks.steps import run as run_step
from tai_benchmarks.tables import plain, tables
from tai_engine.files import write_atomically
from tai_kernels.processor import has_fast_bf16

PAGE = "README.md"
FOLDER = "folder"
"""The benchmark of whole commands over a folder, which needs another program and is run by itself."""
RESULTS = "results"
ALL_SECONDS = 1180.0
"""Of all benchmarks; the rest of twenty minutes is for starting and writing."""
_QUICK_SHARE = 0.5
_FEWEST_SECONDS = 10.0
_BENCHES = ("score", "tune", "encode", "cache", "corpus", "scaling", "shell")
_MEMORY = "cache memory"
_FOLDER_COMMAND = "python -m tai_benchmarks.folder_contest"


class StepOutcome(NamedTuple):
    """How a benchmark went: its name, what `steps.run` says of it, and how long it took."""

    name: str
    outcome: str
    seconds: float


def book_steps(results: Path, quick: bool) -> list[Step]:
    """Every benchmark with its time limit and the options that make it fit.

    A quick run has the quick form of each, and half of the time.
    """
    dtypes = "fp16,bf16" if has_fast_bf16() else "fp16"
    full: list[tuple[str, float, tuple[str, ...]]] = [
        ("score", 200, ("--cases", "rn50-224", "--pooling", "softmax", "--rows", dtypes, "--classes", "20,80,4585")),
        ("tune", 250, ("--cases", "step,mining", "--rounds", "3")),
        ("encode", 180, ("--cases", "rn50-224,photos", "--rounds", "7")),
        ("cache", 120, ("--cases", "random-128,sequential,re-tag")),
        (_MEMORY, 130, ("--cases", "memory")),
        ("corpus", 50, ()),
        ("scaling", 100, ()),
        ("shell", 150, ()),
    ]
    steps = []
    for name, seconds, options in full:
        given = ("--quick",) if quick else options
        if quick and name == _MEMORY:
            continue
        arguments = (*TAI, "bench", name.split()[0], *given, "--results", str(results))
        steps.append(Step(name, seconds * (_QUICK_SHARE if quick else 1), arguments))
    return steps


def run_all(
    folder: Path, *, quick: bool, remark: Callable[[str], None], run: Callable[[Step], str] = run_step
) -> list[StepOutcome]:
    """Run every benchmark, each in a process of its own, and write the book into ``folder``.

    One that fails or runs out of time keeps the rows that it finished, and the others go on. The book is written after
    each, so that what is there when the whole is stopped is true.

    Args:
        folder: of the page, its plots, and ``results``, where rows of earlier runs may be.
        quick: small forms, to try it out.
        remark: told how it goes.
        run: does a step.

    Raises:
        UserError: when the folder cannot be written.
    """
    outcomes: list[StepOutcome] = []
    end = time.monotonic() + ALL_SECONDS
    for step in book_steps(folder / RESULTS, quick):
        start = time.monotonic()
        # One that would not stop has taken from what the later ones have.
        step = step._replace(seconds=min(step.seconds, end - start))
        remark(f"{step.name}, at most {max(step.seconds, 0):.0f} s")
        outcome = run(step) if step.seconds >= _FEWEST_SECONDS else "left out: no time was left"
        outcomes.append(StepOutcome(step.name, outcome, time.monotonic() - start))
        remark(f"{step.name}: {outcome}")
        write_book(folder, outcomes, quick)
    return outcomes


def write_book(folder: Path, outcomes: Sequence[StepOutcome], quick: bool = False) -> Path:
    """Write the page and its plots from the rows in ``folder/results`` of this machine; gives the page's path.

    Raises:
        UserError: when the folder cannot be written or a file of rows is none.
    """
    cpu = torch.device("cpu")
    rows = newest_rows(folder / RESULTS, slug(device_name(cpu)))
    wanted = targets(rows)
    plots = draw_plots(folder, rows, wanted)
    parts = [
        *_head(environment(cpu), quick),
        *_outcomes(outcomes),
        *_targets(wanted, plots),
        *_costs(rows),
        *_scaling(plots),
        *_others(rows),
        *(line for bench in rows for line in _tables(bench, rows[bench])),
    ]
    write_atomically(folder / PAGE, "\n".join(parts).rstrip() + "\n")
    return folder / PAGE


def _head(facts: Mapping[str, Value], quick: bool) -> list[str]:
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    lines = ["# Measured", "", f"Written on {today} by `tai bench all{' --quick' if quick else ''}`, which measures"]
    lines += ["everything on the machine at hand and writes this page; do not edit it.", ""]
    if quick:
        lines += ["**A quick run: small problems, a few rounds. Its figures are no results.**", ""]
    lines += ["| machine | |", "|---|---|"]
    return [*lines, *(f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()), ""]


def _outcomes(outcomes: Sequence[StepOutcome]) -> list[str]:
    if not outcomes:
        return []
    lines = ["| benchmark | | seconds |", "|---|---|---|"]
    return [*lines, *(f"| {name} | {outcome} | {seconds:.0f} |" for name, outcome, seconds in outcomes), ""]


def _targets(wanted: Sequence[SpeedTarget], plots: Sequence[str]) -> list[str]:
    words = {None: "not measured", True: "reached", False: "**missed**"}
    lines = ["## Targets", "", "| what | against | wanted | found | | command |", "|---|---|---|---|---|---|"]
    for t in wanted:
        cells = (t.what, t.against, t.wanted, t.found, words[t.reached], f"`{t.command}`")
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *_picture("targets", "What share of each target is reached", plots)]


def _costs(rows: Mapping[str, list[BenchRow]]) -> list[str]:
    found = costs(rows)
    if not found:
        return []
    lines = ["## A million pictures", "", "Hours of this machine, measured; and seconds of an H100, **computed** from"]
    lines += ["its data sheet (half of 989 Tflop/s, 3.35 TB/s) and **never measured**. Decoding stays on the CPU.", ""]
    lines += ["| stage | pictures/s | hours here | H100 seconds, computed | command |", "|---|---|---|---|---|"]
    for cost in found:
        gpu = "" if cost.gpu_seconds is None else plain(cost.gpu_seconds)
        lines.append(f"| {cost.stage} | {plain(cost.rate)} | {plain(cost.cpu_hours)} | {gpu} | `{cost.command}` |")
    return [*lines, ""]


def _scaling(plots: Sequence[str]) -> list[str]:
    picture = _picture("scaling", "Rates against the number of pictures, words, patches and sentences", plots)
    return ["## How it grows", "", *picture] if picture else []


def _picture(stem: str, what: str, plots: Sequence[str]) -> list[str]:
    if stem not in plots:
        return []
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{stem}-dark.png">'
    return [f'<picture>{dark}<img alt="{what}" src="{stem}-light.png"></picture>', ""]


def _others(benches: Collection[str]) -> list[str]:
    """What stands beside us, and what could not."""
    lines = ["## Beside other programs", ""]
    lines += [
        "open_clip's plain loop runs on the same pictures and weights in `tai bench encode` (below), zarr-python on"
    ]
    lines += ["the same store in `tai bench cache`, the published code's formulas in `tai bench score` and `tune`."]
    if FOLDER in benches:
        lines += ["clip-retrieval, in an environment of its own, encodes the same folder as whole commands do (below)."]
    else:
        lines += [
            "clip-retrieval is **not measured** here: `make clip-retrieval`, then",
            f"`{_FOLDER_COMMAND} --results benchmarks/results`.",
        ]
    return [*lines, ""]


def _tables(bench: str, rows: Sequence[BenchRow]) -> list[str]:
    facts = rows[0].extra
    command = _FOLDER_COMMAND if bench == FOLDER else f"tai bench {bench.removesuffix('-memory')}"
    lines = [f"## {bench}", "", f"`{command}`, {str(facts.get('date'))[:10]}, commit {facts.get('commit')}, load"]
    lines += [
        f"{plain(float(str(facts.get('load_average') or 0)))}; medians, and how far the 20th and 80th percentile lie."
    ]
    for table in tables(rows, _columns(bench)):
        lines += ["", f"### {table.title}", "", f"| {' | '.join(table.headings)} |", "|" + "---|" * len(table.headings)]
        lines += [f"| {' | '.join(cells)} |" for cells in table.lines]
    return [*lines, ""]


def _columns(bench: str) -> Columns:
    """The benchmark's own columns, where what it needs is installed."""
    if bench not in _BENCHES:
        return {}
    try:
        found: Columns = importlib.import_module(f"tai_benchmarks.bench_{bench}").TABLE
    except ModuleNotFoundError as error:
        print(f"{bench}: {error}", file=sys.stderr)
        return {}
    return found
