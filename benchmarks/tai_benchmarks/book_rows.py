"""The recorded rows of one machine, as the book reads them: of each benchmark the newest run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from tai_benchmarks.protocol import BenchRow, Value, read_rows

_OWN = tuple(field.name for field in fields(BenchRow) if field.name != "extra")


def newest_rows(results: Path, device: str) -> dict[str, list[BenchRow]]:
    """Rows by benchmark: those of the last run of each, for a run stamps its rows with one date.

    Args:
        results: the folder of ``<bench>-<device>.jsonl``.
        device: as `machine.slug` writes it.

    Raises:
        UserError: when a file holds something else than rows.
    """
    found: dict[str, list[BenchRow]] = {}
    for path in sorted(results.glob(f"*-{device}.jsonl")):
        rows = list(map(_row, read_rows(path)))
        newest = max(str(row.extra.get("date", "")) for row in rows) if rows else ""
        last = [row for row in rows if str(row.extra.get("date", "")) == newest]
        if last:
            found[last[0].bench] = last
    return found


def _row(line: Mapping[str, Value]) -> BenchRow:
    extra = {name: value for name, value in line.items() if name not in _OWN}
    return BenchRow(**{name: line[name] for name in _OWN}, extra=extra)  # type: ignore[arg-type]  # as recorded


def of_case(
    rows: Mapping[str, list[BenchRow]], bench: str, case: str, candidate: str = "tai", classes: int | None = None
) -> Iterator[BenchRow]:
    """Rows of a benchmark whose case begins so."""
    for row in rows.get(bench, ()):
        if row.case.startswith(case) and row.candidate == candidate and classes in (None, row.classes):
            yield row
