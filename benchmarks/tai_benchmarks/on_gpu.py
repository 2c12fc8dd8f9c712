"""`make gpu`: the GPU tests and the benchmarks on this machine's GPU, in eight minutes, with the Python at hand.

Nothing is installed. What needs a package that is not there (a CUDA image of PyTorch has no open_clip, FAISS or Zarr)
is left out and said. Rows go to ``benchmarks/results``, or to the folder that is given; they hold the share of this
machine's bandwidth and of its rate of matrix products. A step that is out of time keeps the rows that it finished.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tai_benchmarks.steps import TAI, Step, run

ROOT = Path(__file__).parents[2]
ALL_SECONDS = 460.0


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
