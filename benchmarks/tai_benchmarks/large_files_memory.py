"""Memory of caching large files from a packed archive, which travel with their items: of all processes together.

    python -m tai_benchmarks.large_files_memory --pictures 300 --processes 1 2

Draws BMPs of 20 MB into a tar that gzip packs, runs `tai cache images` on the embedded model with as many
``--processes`` each, and prints the most memory that the command and all its descendants had at a time, what they
share counted once: memory of their own, and pages of mapped files (libraries, for the most part), as if nobody else had
mapped these. Beside it, at that moment, the sums of their proportional sets (lower where other programs have mapped the
same libraries) and of their resident sets (higher, for it counts what they share once for each). Linux alone tells
these.
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
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SIDE = 2582
"""Pixels a side of a BMP of 20 MB."""
_SAMPLE_SECONDS = 0.05
_FILES_SECONDS = 1.0


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


@dataclass(frozen=True)
class TreeMemory:
    """Bytes of a process and its descendants; those that have ended count nothing.

    Attributes:
        processes: their ids.
        own: anonymous and shared memory, what they share counted once.
        proportional: their proportional sets, mapped files included.
        resident: their resident sets.
    """

    processes: tuple[int, ...]
    own: int
    proportional: int
    resident: int


def memory_of_tree(pid: int) -> TreeMemory:
    """What the processes have now."""
    sums: Counter[str] = Counter()
    left, alive = [pid], []
    while left:
        process = Path("/proc", str(left.pop()))
        try:
            said = (process / "smaps_rollup").read_text(encoding="ascii")
            for children in (process / "task").glob("*/children"):
                left += map(int, children.read_text(encoding="ascii").split())
        except OSError:
            continue
        alive.append(int(process.name))
        for line in said.splitlines()[1:]:
            name, number, *_ = line.split()
            sums[name] += int(number) * 1024
    return TreeMemory(tuple(alive), sums["Pss_Anon:"] + sums["Pss_Shmem:"], sums["Pss:"], sums["Rss:"])


def mapped_files(processes: Iterable[int]) -> int:
    """Bytes of unchanged pages of files that the processes have in memory, those of a file counted once: as many as the
    one that has the most of it."""
    most: Counter[str] = Counter()
    for process in processes:
        of_files: Counter[str] = Counter()
        name, resident = "", 0
        try:
            lines = Path("/proc", str(process), "smaps").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            key, *values = line.split(maxsplit=5)
            if "-" in key:
                name = values[4] if len(values) == 5 and values[4].startswith("/") and ":" not in values[4] else ""
            elif name and key == "Rss:":
                resident = int(values[0]) * 1024
            elif name and key == "Anonymous:":
                of_files[name] += resident - int(values[0]) * 1024
        most |= of_files
    return most.total()


def peak_of(command: list[str]) -> tuple[float, dict[str, int]]:
    """Run a command; returns its seconds, and the peak of its tree's memory in bytes, seen 20 times a second.

    Returns:
        The seconds, and ``peak`` (of its own and files), with ``files``, ``proportional`` and ``resident`` of then.

    Raises:
        RuntimeError: if it does not end with status 0.
    """
    begun, looked, files, peak = time.perf_counter(), 0.0, 0, {"peak": 0}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        now = memory_of_tree(process.pid)
        if time.perf_counter() - looked > _FILES_SECONDS:  # they grow while they are loaded, and stay
            files, looked = max(files, mapped_files(now.processes)), time.perf_counter()
        if now.own + files > peak["peak"]:
            peak = {"peak": now.own + files, "files": files}
            peak |= {"proportional": now.proportional, "resident": now.resident}
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
                **{f"{name}_mb": round(size / 1e6) for name, size in peak.items()},
                "pictures_per_s": round(options.pictures / seconds, 1),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
