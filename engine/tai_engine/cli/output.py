"""What the commands say: results on stdout, progress and remarks on stderr, JSON for machines.

All that is said to people passes `shown`, so that no name of a file can steer a terminal; JSON has every name exactly.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tai_engine.cli.foreign_text import shown


class PlainConsole(Console):
    """A console that takes text for text: neither markup nor escape codes in it mean anything."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print each text as it is, in one line; tables and the like as they are."""
        plain = (shown(one) if isinstance(one, str) else one for one in objects)
        super().print(*plain, **{"markup": False, "highlight": False, "emoji": False, **options})


results = PlainConsole(soft_wrap=True)
remarks = PlainConsole(stderr=True, soft_wrap=True)


class RemarkHandler(logging.Handler):
    """Log records as remarks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        remarks.print(f"{record.levelname}: {record.getMessage()}")


def prepare_streams() -> None:
    """Let letters that a terminal has no code for appear as escapes instead of ending the run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_fields(*fields: str) -> None:
    """One line on stdout with tabs between the fields, as ``cut`` and spreadsheets read it.

    A backslash of a field is doubled, so that what was escaped can be read back without a doubt.
    """
    sys.stdout.write("\t".join(shown(field.replace("\\", "\\\\")) for field in fields) + "\n")


def print_json(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """One JSON object on stdout, or one a line for a sequence; names are exact, whatever stdout can encode.

    A number that there is none of, such as the mean over no classes, is null: JSON has no NaN.
    """
    is_utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    for row in [value] if isinstance(value, Mapping) else value:
        text = json.dumps(_finite(row), ensure_ascii=not is_utf8, default=str, allow_nan=False)
        if not text.isascii():  # bytes of names that are no UTF-8 can be written as escapes alone
            text = text.encode("utf-8", "backslashreplace").decode()
        sys.stdout.write(text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; numbers are right-aligned."""
    table = Table(title=_text(title) if title else None, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows) and bool(rows)
        table.add_column(_text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(f"{cell:.4g}" if isinstance(cell, float) else str(cell)) for cell in row))
    results.print(table)


def print_narrow_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout without lines between columns; headings are broken at spaces, all but the first stand right."""
    table = Table(
        title=_text(title) if title else None,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    for index, column in enumerate(columns):
        table.add_column(
            column.replace(" ", "\n"), justify="right" if index else "left", vertical="bottom", no_wrap=True
        )
    for row in rows:
        table.add_row(*map(_text, row))
    results.print(table, "")


def _text(text: str) -> Text:
    return Text(shown(text))


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
