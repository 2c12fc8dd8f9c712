"""Benchmark rows as tables that people read in a terminal of 80 columns: what all lines share stands in the title."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tai_benchmarks.protocol import BenchRow, Columns


class TextTable(NamedTuple):
    """A title, headings (which may be broken at spaces), and lines of cells."""

    title: str
    headings: tuple[str, ...]
    lines: list[tuple[str, ...]]


def tables(rows: Sequence[BenchRow], columns: Columns) -> Iterator[TextTable]:
    """A table for each run of rows of the same benchmark, unit, number of classes and case but for its last part.

    A line is a candidate with its median, how far the 20th and the 80th percentile are from it on the average, and how
    many times better it is than each baseline; then come ``columns``.

    Args:
        rows: in the order in which they were measured; those of one candidate and case, against several baselines,
            share a line.
        columns: the benchmark's own, by heading.
    """
    for (bench, unit, classes, stem), group in itertools.groupby(rows, key=_subject):
        lines: dict[tuple[str, str], dict[str, BenchRow]] = {}
        for row in group:
            lines.setdefault((row.candidate, row.case), {})[row.baseline] = row
        leaves = list(dict.fromkeys(case.removeprefix(stem).lstrip("/") for _, case in lines))
        baselines = list(dict.fromkeys(name for of_line in lines.values() for name in of_line))
        has_leaves = len(leaves) > 1
        case = stem if has_leaves else "/".join(part for part in (stem, leaves[0]) if part)
        title = f"{bench}, {unit}: {case}" + (f", {classes:,} classes" if classes else "")
        headings = (
            "candidate",
            *(["case"] if has_leaves else []),
            unit,
            "±",
            *(f"times {b.replace('-', ' ')}" for b in baselines),
        )
        table = TextTable(title, (*headings, *columns), [])
        for (candidate, full), of_line in lines.items():
            row = next(iter(of_line.values()))
            ratios = [plain(of_line[b].ratio) if b in of_line else "" for b in baselines]
            spread = f"{50 * (row.p80 - row.p20) / row.value:.0f}%" if row.value else ""
            own = [str(cell(row)) for cell in columns.values()]
            leaf = [full.removeprefix(stem).lstrip("/")] if has_leaves else []
            table.lines.append((candidate, *leaf, plain(row.value), spread, *ratios, *own))
        yield table


def _subject(row: BenchRow) -> tuple[str, str, int, str]:
    return row.bench, row.unit, row.classes, row.case.rpartition("/")[0] or row.case


def plain(value: float) -> str:
    """Three significant digits or more, never an exponent: ``56,123``, ``7.21``, ``0.0937``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def percent(share: object) -> str:
    """``0.914`` as ``91%``; nothing for what is no number."""
    return f"{100 * share:.0f}%" if isinstance(share, float) else ""
