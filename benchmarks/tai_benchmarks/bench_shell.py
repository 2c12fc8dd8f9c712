"""What a user waits for at the shell: whole commands, each a process of its own, imports and all.

``tag`` is ``tai tag`` of cached pictures with the embedded model's words: ``anew`` makes the class vectors, ``tai`` has
kept them from an earlier command. ``help`` is ``tai --help`` beside the bare interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tai_benchmarks.machine import environment
from tai_benchmarks.photograph_copies import copy_photographs
from tai_benchmarks.protocol import BenchRow, Candidate, Columns, Timing, measure
from tai_benchmarks.steps import TAI
from tai_engine.errors import UserError, unknown_choice

BENCH = "shell"
CASES = ("help", "tag")
_ROUNDS, _FEWEST = 5, 3
_PICTURES, _QUICK_PICTURES = 1000, 50
_MODEL = "photos"

TABLE: Columns = {}


class FailedCommandError(RuntimeError):
    """A command that is timed did not end well."""


@dataclass(frozen=True)
class ShellConfig:
    """What to measure.

    Attributes:
        cases: names out of ``CASES``.
        pictures: in the store that is tagged; copies of the embedded photographs.
        rounds: times that each command is run.

    Raises:
        UserError: for an unknown case or numbers out of range.
    """

    cases: tuple[str, ...] = CASES
    pictures: int = _PICTURES
    rounds: int = _ROUNDS

    def __post_init__(self) -> None:
        for name in self.cases:
            if name not in CASES:
                raise unknown_choice("case", name, CASES)
        if self.rounds < _FEWEST or self.pictures < 1:
            raise UserError(f"There must be {_FEWEST} rounds and a picture at least.")


def configure(*, quick: bool, **wanted: Any) -> ShellConfig:
    """What was asked for; the rest as a full or a quick run has it."""
    return ShellConfig(**(({"rounds": _FEWEST, "pictures": _QUICK_PICTURES} if quick else {}) | wanted))


def run(config: ShellConfig, remark: Callable[[str], None] = lambda _: None) -> Iterator[BenchRow]:
    """Measure every command and yield its rows, in seconds.

    Args:
        config: what to measure.
        remark: told what is being measured.

    Raises:
        FailedCommandError: when a command does not end well; with what it said.
    """
    facts = environment(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in config.cases:
            remark(f"{case}: {config.rounds} times each")
            works = _help(folder) if case == "help" else _tag(folder, config.pictures)
            timings = measure({name: Candidate(work, 1) for name, work in works.items()}, CPU, rounds=config.rounds)
            baseline = next(iter(works))
            label = case if case == "help" else f"tag/{config.pictures}-pictures"
            for candidate, timing in timings.items():
                yield _seconds(label, (candidate, timing), (baseline, timings[baseline]), facts)


CPU = torch.device("cpu")


def _help(folder: Path) -> dict[str, Callable[[], object]]:
    return {
        "bare-python": lambda: _run(folder, "-c", "pass"),
        "tai": lambda: _run(folder, *TAI, "--help"),
    }


def _tag(folder: Path, pictures: int) -> dict[str, Callable[[], object]]:
    copy_photographs(folder / "pictures", pictures)
    _run(folder, *TAI, "cache", "images", "pictures", "s.zarr", "--model", _MODEL)
    command = (*TAI, "tag", "s.zarr", "--vocabulary", "coco80", "--top-k", "5", "--out", "tags.parquet")
    return {
        "anew": lambda: _run(folder, *command, keep=False),
        "tai": lambda: _run(folder, *command),
    }


def _run(folder: Path, *arguments: str, keep: bool = True) -> None:
    """Run Python in ``folder``, with class vectors kept or not; the user's own cache has the compiled kernels too."""
    environment = {name: value for name, value in os.environ.items() if name != "TAI_KEEP_VECTORS"}
    if not keep:
        environment["TAI_KEEP_VECTORS"] = "0"
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise FailedCommandError(f"{' '.join(arguments[2:])} ended with {done.returncode}: {done.stderr[-500:]}")


def _seconds(case: str, candidate: tuple[str, Timing], baseline: tuple[str, Timing], facts: dict[str, Any]) -> BenchRow:
    low, middle, high = (1 / candidate[1].throughput(share) for share in (0.8, 0.5, 0.2))
    return BenchRow(
        bench=BENCH,
        case=case,
        classes=0,
        candidate=candidate[0],
        baseline=baseline[0],
        value=middle,
        unit="s",
        p20=low,
        p80=high,
        ratio=1 / (middle * baseline[1].throughput()),
        extra={"rounds": len(candidate[1].seconds), **facts},
    )
