"""What the commands say: results on stdout, progress and remarks on stderr, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

results = Console(soft_wrap=True)
remarks = Console(stderr=True, soft_wrap=True)


def print_json(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """One JSON object on stdout, or one a line for a sequence."""
    for row in [value] if isinstance(value, Mapping) else value:
        sys.stdout.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; numbers are right-aligned."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows) and bool(rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    results.print(table)


def print_narrow_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout without lines between columns; headings are broken at spaces, all but the first stand right."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(
            column.replace(" ", "\n"), justify="right" if index else "left", vertical="bottom", no_wrap=True
        )
    for row in rows:
        table.add_row(*row)
    results.print(table, "")


class ProgressBar:
    """Items done, rate and time left on stderr; silent when stderr is not a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Show that ``done`` of ``total`` items (None: not known yet) are through."""
        task = self._progress.tasks[0]
        rate = done / task.elapsed if task.elapsed else 0.0
        self._progress.update(self._task, completed=done, total=total, rate=f"{rate:,.1f}/s", note=note)


@contextmanager
def progress_bar(description: str) -> Iterator[ProgressBar]:
    """A bar that vanishes at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=remarks, transient=True, disable=not remarks.is_terminal) as progress:
        yield ProgressBar(progress, progress.add_task(description, total=None, rate="", note=""))
