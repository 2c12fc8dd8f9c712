"""What the engine is meant to reach, each target held against the row that measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tai_benchmarks.book_rows import of_case
from tai_benchmarks.protocol import BenchRow

Rows = Mapping[str, list[BenchRow]]
NOT_MEASURED = "not measured here"


@dataclass(frozen=True)
class SpeedTarget:
    """One line of the table.

    Attributes:
        what: is measured.
        against: whom or what.
        wanted: in words.
        found: what was measured, in words.
        reached: None if it was not measured.
        command: that measures it.
        share: of the wanted, above 1 is better; None if it was not measured.
    """

    what: str
    against: str
    wanted: str
    found: str
    reached: bool | None
    command: str
    share: float | None


def targets(rows: Rows) -> list[SpeedTarget]:
    """All targets, whether they were measured or not."""
    return [
        _ratio(rows, "a tuning step of 512 sentences, 80 words", "the published formulation", 25,
               ("tune", "step/512-sentences", "published", 80), "tai bench tune --cases step"),
        *(_scoring(rows, classes) for classes in (20, 80, 4585)),
        SpeedTarget("scoring on an H100", "the fastest torch", "1.2 to 2 times", NOT_MEASURED, None, "make gpu", None),
        _ratio(rows, "reading random batches of 128 items", "zarr-python", 15,
               ("cache", "random-128", "zarr-python", None), "tai bench cache --cases random-128"),
        _ratio(rows, "encoding with RN50 to CLIP's own vectors", "open_clip's plain loop", 4,
               ("encode", "rn50-224", "open_clip", None), "tai bench encode --cases rn50-224", candidate="tai-coarse"),
        _ratio(rows, "tagging a cached collection anew", "encoding it again", 100,
               ("cache", "re-tag", "encode-again", None), "tai bench cache --cases re-tag"),
        _most(rows, "peak memory of tagging a million items", 2.0, "GB",
              ("cache-memory", "tag/1000000"), "tai bench cache --cases memory"),
        _most(rows, "`tai tag` of 1,000 cached pictures, words seen before", 3.0, "s",
              ("shell", "tag/1000"), "tai bench shell --cases tag"),
        _most(rows, "`tai --help`", 0.3, "s", ("shell", "help"), "tai bench shell --cases help"),
    ]  # fmt: skip


def _ratio(
    rows: Rows,
    what: str,
    against: str,
    least: float,
    where: tuple[str, str, str, int | None],
    command: str,
    candidate: str = "tai",
) -> SpeedTarget:
    bench, case, baseline, classes = where
    ratios = [row.ratio for row in of_case(rows, bench, case, candidate, classes) if row.baseline == baseline]
    if not ratios:
        return SpeedTarget(what, against, f"{least:g} times", NOT_MEASURED, None, command, None)
    ratio = max(ratios)
    return SpeedTarget(what, against, f"{least:g} times", f"{ratio:.1f} times", ratio >= least, command, ratio / least)


def _scoring(rows: Rows, classes: int) -> SpeedTarget:
    """Eight times the published code where there is AMX; elsewhere 60 % of the machine's own rate will do."""
    command = f"tai bench score --cases rn50-224 --pooling softmax --classes {classes}"
    what, against, wanted = f"scoring with {classes:,} words", "the published formulation", "8 times, or 60 % of gemm"
    best: Callable[[BenchRow], float] = lambda row: row.ratio  # noqa: E731
    own = [r for r in of_case(rows, "score", "rn50-224/softmax", classes=classes) if r.baseline == "published"]
    if not own:
        return SpeedTarget(what, against, wanted, NOT_MEASURED, None, command, None)
    row = max(own, key=best)
    share = float(row.extra.get("share_of_gemm") or 0.0)
    has_amx = "AMX" in str(row.extra.get("device"))
    reached = row.ratio >= 8 or (not has_amx and share >= 0.6)
    found = f"{row.ratio:.1f} times, {100 * share:.0f} % of gemm"
    return SpeedTarget(
        what, against, wanted, found, reached, command, row.ratio / 8 if has_amx else max(row.ratio / 8, share / 0.6)
    )


def _most(rows: Rows, what: str, most: float, unit: str, where: tuple[str, str], command: str) -> SpeedTarget:
    values = [row.value for row in of_case(rows, *where)]
    if not values:
        return SpeedTarget(what, "", f"at most {most:g} {unit}", NOT_MEASURED, None, command, None)
    value = max(values)
    return SpeedTarget(
        what, "", f"at most {most:g} {unit}", f"{value:.3g} {unit}", value <= most, command, most / value
    )
