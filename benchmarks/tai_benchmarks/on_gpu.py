"""`make gpu`: the GPU tests and the benchmarks on this machine's GPU, in eight minutes, with the Python at hand.

Nothing is installed. What needs a package that is not there (a CUDA image of PyTorch has no open_clip, FAISS or Zarr)
is left out and said. Rows go to ``benchmarks/results``, or to the folder that is given; they hold the share of this
machine's bandwidth and of its rate of matrix products. A step that is out of time keeps the rows that it finished.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TAI = ("-c", "from tai_engine.cli.main import main; main()")
ALL_SECONDS = 460.0
_LAST_SECONDS = 15.0


class Step(NamedTuple):
    """One thing to do: what it is called, the seconds it may take, Python's arguments, and packages that it needs."""

    name: str
    seconds: float
    arguments: Sequence[str]
    needs: Sequence[str] = ()


SHELL = ("typer", "rich")
"""What the command line needs."""


def steps(results: Path) -> list[Step]:
    """All of it; the last step also has what the others leave of `ALL_SECONDS`."""

    def bench(name: str, *options: str) -> tuple[str, ...]:
        return (*TAI, "bench", name, "--device", "cuda", "--results", str(results), *options)

    tests = ("-m", "pytest", "-q", "-m", "gpu", "--skip-uninstalled", "tests")
    return [
        Step("score", 150, bench("score", "--cases", "rn50-224,vit-b16-224", "--pooling", "softmax"), SHELL),
        Step("tune", 60, bench("tune", "--cases", "step,mining"), (*SHELL, "open_clip", "faiss", "zarr")),
        Step("encode", 60, bench("encode", "--cases", "rn50-224,vit-b16-224"), (*SHELL, "open_clip", "zarr")),
        Step("tests", 180, tests, ("pytest", "hypothesis")),
    ]


def missing(step: Step) -> list[str]:
    """The packages that a step needs and that are not installed."""
    return [name for name in step.needs if find_spec(name) is None]


def run(step: Step, last_seconds: float = _LAST_SECONDS) -> str:
    """Do it, and say how it went: ``done``, ``failed``, ``out of time``, or what it would have needed."""
    absent = missing(step)
    if absent:
        return f"left out: {', '.join(absent)} not installed"
    process = subprocess.Popen([sys.executable, *step.arguments], cwd=ROOT)
    try:
        status = process.wait(step.seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that it can record what it has
        try:
            process.wait(last_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return f"out of time after {step.seconds:g} s"
    return "done" if status == 0 else f"failed with status {status}"


def main() -> None:
    """Do every step; the exit status is 1 when one of them failed."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("make gpu is for a machine with a CUDA GPU, and torch sees none here.")
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results"
    begun = time.monotonic()
    outcomes = []
    todo = steps(results)
    for step in todo:
        start = time.monotonic()
        if step is todo[-1]:
            step = step._replace(seconds=ALL_SECONDS - (start - begun))
        outcomes.append((step.name, run(step), time.monotonic() - start))
    print()
    for name, outcome, seconds in outcomes:
        print(f"{name}: {outcome} ({seconds:.0f} s)")
    print(f"all: {time.monotonic() - begun:.0f} s; rows in {results}")
    sys.exit(any(outcome.startswith("failed") for _, outcome, _ in outcomes))


if __name__ == "__main__":
    main()
