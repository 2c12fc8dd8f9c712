"""How every benchmark measures and what it reports: interleaved rounds, medians with p20 and p80, rows of JSON.

All candidates of a case run in one process, in turn, in every round, so that whatever else the machine does meets all
of them alike; the order rotates, so that no candidate always follows the same one. The machine's own limits
(``machine.probes``) are candidates like any other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from tai_engine.errors import UserError
from tai_engine.files import write_atomically

ROUNDS = 15
"""Fewest rounds of a recorded measurement."""
QUICK_ROUNDS = 5
FEWEST_ROUNDS = 3
"""What is left of them when the time is used up."""

_SHORTEST_SAMPLE_SECONDS = {"cpu": 60e-3, "cuda": 2e-3}
"""A sample is as many calls as last this long. A CPU is shared: shorter than the time slices of its scheduler, a sample
would be either wholly undisturbed or wholly not, by chance. And the threads of the candidate before, if it was torch,
go on spinning for some milliseconds when it is over."""

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    Attributes:
        run: does the work once; its result is thrown away.
        items: how many items (images, bytes, operations) one call does.
    """

    run: Callable[[], object]
    items: float


@dataclass(frozen=True)
class Timing:
    """What was measured of one candidate.

    Attributes:
        seconds: of one call, one sample a round.
        items: that one call does.
    """

    seconds: tuple[float, ...]
    items: float

    def throughput(self, quantile: float = 0.5) -> float:
        """Items per second: the given quantile over the rounds, linear between samples."""
        return float(np.quantile(self.items / np.asarray(self.seconds), quantile))


@dataclass(frozen=True)
class BenchRow:
    """One result; ``as_dict`` gives the JSON object, the fields in this order and then the extra ones.

    Attributes:
        bench: the benchmark's name, e.g. ``"score"``.
        case: what was measured, e.g. ``"rn50-224/softmax/fp16"``.
        classes: C.
        candidate: who; our own path is ``"tai"``.
        baseline: whom it is compared with.
        value: the median.
        unit: of ``value``, ``p20`` and ``p80``.
        p20: quantile of the value itself over the rounds.
        p80: likewise.
        ratio: above 1 means that the candidate is better than the baseline.
        extra: anything else that belongs to the result.
    """

    bench: str
    case: str
    classes: int
    candidate: str
    baseline: str
    value: float
    unit: str
    p20: float
    p80: float
    ratio: float
    extra: Mapping[str, Value] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Value]:
        """The row as one flat JSON object."""
        own: dict[str, Value] = {name: value for name, value in vars(self).items() if name != "extra"}
        clash = own.keys() & self.extra.keys()
        assert not clash, f"extra fields {sorted(clash)} would hide the row's own"
        return own | dict(self.extra)

    @property
    def key(self) -> tuple[Value, ...]:
        """What a newer row must share to replace this one."""
        return _key(self.as_dict())


Columns = dict[str, Callable[[BenchRow], object]]
"""What a benchmark shows beside what all of them do: a heading and what stands below it."""


def throughput_row(
    bench: str,
    case: str,
    classes: int,
    candidate: tuple[str, Timing],
    baseline: tuple[str, Timing],
    unit: str,
    extra: Mapping[str, Value] | None = None,
) -> BenchRow:
    """The row of items per second; the ratio is that of the medians."""
    timing, reference = candidate[1], baseline[1]
    return BenchRow(
        bench=bench,
        case=case,
        classes=classes,
        candidate=candidate[0],
        baseline=baseline[0],
        value=timing.throughput(),
        unit=unit,
        p20=timing.throughput(0.2),
        p80=timing.throughput(0.8),
        ratio=timing.throughput() / reference.throughput(),
        extra={"rounds": len(timing.seconds), **(extra or {})},
    )


def measure(
    candidates: Mapping[str, Candidate],
    device: torch.device,
    *,
    rounds: int = ROUNDS,
    seconds: float = float("inf"),
    clock: Callable[[Callable[[], object], int], float] | None = None,
) -> dict[str, Timing]:
    """Time all candidates side by side.

    Each runs once or twice before the rounds, which says how many calls make a sample of measurable length. What
    compiles on its first call has made it before, when its result was checked.

    Args:
        candidates: by name.
        device: where they run; on a GPU its own events are the clock.
        rounds: samples of each candidate.
        seconds: when these are used up the rounds end early, but not before ``FEWEST_ROUNDS``.
        clock: gives the seconds that so many calls took; the device's own by default.
    """
    clock = clock or (_cuda_clock if device.type == "cuda" else _wall_clock)
    start = time.monotonic()
    repeats = {}
    shortest = _SHORTEST_SAMPLE_SECONDS[device.type]
    for name, candidate in candidates.items():
        once = clock(candidate.run, 1)
        if once < 10 * shortest:  # the first call may have been the slow one
            once = min(once, clock(candidate.run, 1))
        repeats[name] = max(1, round(shortest / max(once, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() - start > seconds:
            break
        turn = number % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            samples[name].append(clock(candidates[name].run, repeats[name]) / repeats[name])
    return {name: Timing(tuple(samples[name]), candidates[name].items) for name in names}


def _wall_clock(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    return (time.perf_counter_ns() - start) * 1e-9


def _cuda_clock(run: Callable[[], object], repeats: int) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1e-3


def _key(row: Mapping[str, Value]) -> tuple[Value, ...]:
    return tuple(row.get(name) for name in ("bench", "case", "classes", "candidate", "baseline"))


def checkout_results() -> Path | None:
    """``benchmarks/results`` of the checkout that this runs from, None when the package is installed elsewhere."""
    root = Path(__file__).parents[1]
    return root / "results" if (root.parent / "pyproject.toml").is_file() else None


def record(rows: Sequence[BenchRow], folder: Path, device: str) -> Path:
    """Keep rows as ``<folder>/<bench>-<device>.jsonl``, where a newer row takes the place of the older one.

    Rows that this run did not measure stay; the file is replaced whole. All rows must be of one bench.

    Args:
        rows: at least one.
        folder: made when missing.
        device: as ``machine.slug`` writes it.

    Returns:
        The file's path.

    Raises:
        UserError: when the file that is there holds something else, or cannot be written.
    """
    benches = {row.bench for row in rows}
    if len(benches) != 1:
        raise ValueError(f"rows of one bench are recorded together, not of {sorted(benches)}")
    path = folder / f"{benches.pop()}-{device}.jsonl"
    kept = {_key(row): row for row in read_rows(path)} if path.exists() else {}
    kept |= {row.key: row.as_dict() for row in rows}
    write_atomically(path, "".join(json_line(row) for row in kept.values()))
    return path


def read_rows(path: Path) -> Iterable[dict[str, Value]]:
    """The recorded rows of a file.

    Raises:
        UserError: when a line is not a row.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            known = isinstance(row, dict) and None not in _key(row)
        except ValueError:
            known = False
        if not known:
            raise UserError(f"Line {number} of '{path}' is not a benchmark row; move the file away and run again.")
        rows.append(row)
    return rows


def json_line(row: Mapping[str, Value]) -> str:
    """One row as one line of JSON, floats cut to 6 significant digits (no measurement has more)."""
    return json.dumps({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}) + "\n"
