"""What a calibration reads and leaves beside its own file: rates of tags, and a report."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from tai_engine.annotating.calibrate_store import CalibrationResult
from tai_engine.calibration.calibration_report import CalibrationOutcome, draw_reliability
from tai_engine.errors import UserError
from tai_engine.files import write_atomically
from tai_engine.tables import Table
from tai_engine.vocabulary.spelling import comparable_name

PLOT, PER_TAG = "reliability.png", "per_tag.csv"


def read_rates(path: Path) -> dict[str, float]:
    """Shares of pictures by tag, from a table with the columns ``tag`` and ``rate``, in any case.

    Raises:
        UserError: for a file that cannot be read or lacks a column, a rate that is no number, or a tag that comes twice
            (whatever its case, underscores and blanks).
    """
    table = Table(path, ("tag", "rate"), kind="table of rates")
    tag_column, rate_column = table.find(["tag"]), table.find(["rate"])
    if tag_column is None or rate_column is None:
        raise UserError(
            f"The {table.what} needs the columns 'tag' and 'rate', and has {table.listed_columns()}: name them so in "
            "its first line."
        )
    rates: dict[str, float] = {}
    seen: set[str] = set()
    for row in table.rows((tag_column, rate_column)):
        name = str(row.values.get(tag_column, ""))
        try:
            rate = float(row.values[rate_column])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"In {row.place} of '{path}' the rate of {name!r} is no number: "
                "give the share of pictures that have it, such as 0.05."
            ) from error
        if comparable_name(name) in seen:
            raise UserError(f"The tag {name!r} comes twice in '{path}': remove one of its rows.")
        seen.add(comparable_name(name))
        rates[name] = rate
    return rates


def write_report(result: CalibrationResult, folder: Path) -> None:
    """``reliability.png``, and ``per_tag.csv`` with a row per tag and part.

    Raises:
        UserError: when the folder cannot be written.
    """
    write_atomically(folder / PLOT, draw_reliability(result.fitted, result.held_out))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["part", "tag", "positives", "brier", "calibration_error", "tagged", "precision", "recall"])
    for part, outcome in (("fitted", result.fitted), ("held out", result.held_out)):
        writer.writerows(_rows(part, outcome))
    write_atomically(folder / PER_TAG, text.getvalue())


def _rows(part: str, outcome: CalibrationOutcome | None) -> list[list[object]]:
    if outcome is None:
        return []
    rows: list[list[object]] = []
    for tag in outcome.tags:
        known = ["" if value is None else value for value in (tag.tagged, tag.precision, tag.recall)]
        rows.append([part, tag.name, tag.positives, tag.brier, tag.error, *known])
    return rows
