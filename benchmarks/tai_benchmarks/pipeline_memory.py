"""Peak memory of caching and tagging collections of different sizes: it has to be flat.

    python -m tai_benchmarks.pipeline_memory --pictures 1000 10000

Copies photographs, then runs `tai cache images` and `tai tag` on the embedded model, each in a process of its own, and
prints what the operating system says of that process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tai_benchmarks.photograph_copies import copy_photographs

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


def run_and_measure(*arguments: str) -> tuple[float, int]:
    """Run a ``tai`` command; returns its seconds and its peak of resident memory in bytes.

    Raises:
        RuntimeError: if it does not end with status 0.
    """
    begun = time.perf_counter()
    code = "from tai_engine.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"tai {' '.join(arguments)} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begun, usage.ru_maxrss * _RSS_UNIT


def main(arguments: list[str] | None = None) -> None:
    """Measure every size and print one JSON object a line."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.pipeline_memory", description=__doc__)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, 10000])
    options = parser.parse_args(arguments)
    for count in options.pictures:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_photographs(folder / "pictures", count)
            store, tags = str(folder / "s.zarr"), str(folder / "t.parquet")
            for step, command in (
                ("cache", ("cache", "images", str(folder / "pictures"), store, "--model", "photos")),
                ("tag", ("tag", store, "--vocabulary", "coco80", "--out", tags)),
            ):
                seconds, peak = run_and_measure(*command)
                row = {
                    "step": step,
                    "pictures": count,
                    "peak_mb": round(peak / 1e6),
                    "pictures_per_s": round(count / seconds, 1),
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
