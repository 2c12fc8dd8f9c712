"""Memory of caching large files from a packed archive, which travel with their items: of all processes together.

    python -m tai_benchmarks.large_files_memory --pictures 300 --processes 1 2

Draws BMPs of 20 MB into a tar that gzip packs, runs `tai cache images` on the embedded model with as many
``--processes`` each, and prints the most memory that the command and all its descendants had at a time: the sum of
their proportional sets, so that what they share counts once. Linux alone tells these.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from PIL import Image

SIDE = 2582
"""Pixels a side of a BMP of 20 MB."""
_SAMPLE_SECONDS = 0.05


def write_archive(path: Path, pictures: int) -> None:
    """So many BMPs of 20 MB, each of one colour, in a packed tar. Memory: one of them."""
    with gzip.open(path, "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(pictures):
            file = io.BytesIO()
            Image.new("RGB", (SIDE, SIDE), (number % 256, number // 256, 99)).save(file, "BMP")
            member = tarfile.TarInfo(f"{number:05d}.bmp")
            member.size = file.tell()
            file.seek(0)
            archive.addfile(member, file)


def memory_of_tree(pid: int) -> int:
    """Bytes of a process and its descendants, what they share counted once; those that have ended count nothing."""
    total, left = 0, [pid]
    while left:
        process = Path("/proc", str(left.pop()))
        try:
            said = (process / "smaps_rollup").read_text(encoding="ascii")
            for children in (process / "task").glob("*/children"):
                left += map(int, children.read_text(encoding="ascii").split())
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in said.splitlines() if line.startswith("Pss:"))
    return total


def peak_of(command: list[str]) -> tuple[float, int]:
    """Run a command; returns its seconds and the peak of its tree's memory in bytes, seen 20 times a second.

    Raises:
        RuntimeError: if it does not end with status 0.
    """
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, memory_of_tree(process.pid))
        time.sleep(_SAMPLE_SECONDS)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - begun, peak


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one JSON object a line."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.large_files_memory", description=__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name, "large.tar.gz")
        write_archive(archive, options.pictures)
        for processes in options.processes:
            command = [sys.executable, "-c", "from tai_engine.cli.main import main; main()", "cache", "images"]
            command += [str(archive), str(Path(name, f"s{processes}.zarr")), "--model", "demo", "--coarse-only"]
            command += ["--processes", str(processes)]
            seconds, peak = peak_of(command)
            row = {
                "pictures": options.pictures,
                "processes": processes,
                "peak_mb": round(peak / 1e6),
                "pictures_per_s": round(options.pictures / seconds, 1),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
