"""How much memory a call needs beside its inputs and outputs, and whether that grows with the similarities.

torch's allocator tells on a GPU. On a CPU nothing sees every allocation but the kernel of the operating system: the
peak of the resident set is read from Linux, in a process of its own (``measure_in_new_process``) whose allocator gives
freed memory back at once. A page that is never touched does not count.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tai_benchmarks.published import published_scores
from tai_benchmarks.score_contenders import tai
from tai_benchmarks.score_problem import SCALE, TEMPERATURE, ScoreProblem, Shape

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
# From this size on every block is mapped and unmapped by itself, so that freed memory cannot hide a later peak.
_RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


class NotMeasurableError(RuntimeError):
    """This system does not tell the peak of a process's memory."""


@dataclass(frozen=True)
class MemoryProblem:
    """One scoring call whose memory is wanted.

    Attributes:
        candidate: ``"tai"`` or ``"published"``.
        rows: L.
        dim: D.
        items: N.
        classes: C.
        pooling: a mode.
        row_dtype: of the rows; ``published`` takes fp32.
        device: where it runs.
    """

    candidate: str
    rows: int
    dim: int
    items: int
    classes: int
    pooling: str
    row_dtype: str
    device: str


def peak_extra_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Bytes held at the worst moment of ``call`` beyond those held before it; its result counts.

    Raises:
        NotMeasurableError: on a system that does not tell.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        before = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - before)
    except (OSError, KeyError) as error:
        raise NotMeasurableError(f"the peak of memory cannot be read here ({error})") from error


def process_peak_bytes() -> int:
    """Most memory that this program ever had in RAM.

    On Linux ``getrusage`` also counts what the process was before it became this program, so the kernel's own figure
    goes first.
    """
    try:
        return _status_bytes("VmHWM")
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def ask_new_process(module: str, given: Any, seconds: float, environment: Mapping[str, str] | None = None) -> Any:
    """What a module, run as a program with as many threads as this one, answers: JSON in, JSON out.

    Raises:
        NotMeasurableError: when it fails, with what it said last, or takes longer than ``seconds``.
    """
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            env=os.environ | threads | dict(environment or {}),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasurableError(f"measuring memory took longer than the {seconds:.0f} s that were left") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it left with status {done.returncode}"]
        raise NotMeasurableError(f"the process that measures memory failed: {lines[-1]}")
    return json.loads(done.stdout)


def _status_bytes(name: str) -> int:
    fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024


def measure(problem: MemoryProblem) -> int:
    """Peak bytes of one call beside its inputs and its three [N, C] fp32 outputs.

    A call on a few items first wakes the thread pool and loads code. ``published`` is run on all items at once, as it
    is written: that is the memory it is known for.

    Raises:
        NotMeasurableError: on a system that does not tell.
    """
    device, shape = torch.device(problem.device), Shape(problem.rows, problem.dim)

    def call_on(items: int) -> Callable[[], object]:
        made = ScoreProblem(shape, items, problem.classes, problem.pooling, device)
        if problem.candidate == "tai":
            return tai(made.inputs(problem.row_dtype), problem.pooling)
        raw = made.raw
        vectors = (raw.coarse, raw.fine, raw.class_global, raw.class_local)
        return lambda: published_scores(*vectors, temperature=TEMPERATURE, scale=SCALE, pooling=problem.pooling)

    with torch.inference_mode():
        call_on(1)()
        outputs = 3 * 4 * problem.items * problem.classes
        return max(0, peak_extra_bytes(call_on(problem.items), device) - outputs)


def measure_in_new_process(problems: list[MemoryProblem], seconds: float = 600.0) -> list[int]:
    """``measure`` of each, in one fresh process with nothing else in its memory.

    Raises:
        NotMeasurableError: on a system that does not tell, with what the process said last, or when it takes longer
            than ``seconds``.
    """
    given = [asdict(problem) for problem in problems]
    found = ask_new_process("tai_benchmarks.peak_memory", given, seconds, _RETURN_FREED_MEMORY)
    return [int(value) for value in found]


def _main() -> None:
    """Read problems as JSON from stdin, write bytes as JSON to stdout."""
    problems = [MemoryProblem(**fields) for fields in json.load(sys.stdin)]
    json.dump([measure(problem) for problem in problems], sys.stdout)


if __name__ == "__main__":
    _main()
