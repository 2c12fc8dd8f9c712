"""What ``tai cache`` says, and others that cache on their way: how far it is, what came of it, what failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tai_engine.cli.options import SOME_ITEMS_FAILED
from tai_engine.cli.output import ProgressBar, print_json, remarks, results
from tai_engine.files import human_bytes

if TYPE_CHECKING:
    from tai_engine.caching.report import CacheProgress, CacheReport


def show(bar: ProgressBar, store: str | Path) -> Callable[[CacheProgress], None]:
    """A callback that says how much is to come, then draws the progress of caching."""
    from tai_engine.caching.sizes import free_bytes

    is_begun = False

    def update(progress: CacheProgress) -> None:
        nonlocal is_begun
        through = progress.done + progress.failed + progress.skipped
        if not is_begun and progress.estimated_bytes and progress.total is not None:
            free = free_bytes(store)
            left = "" if free is None else f", {human_bytes(free)} free"
            size = human_bytes(progress.estimated_bytes)
            remarks.print(f"{progress.total:,} items, about {size} to be written{left}.")
        is_begun = True
        bar.update(through, progress.total, f"{progress.failed} failed" if progress.failed else "")

    return update


def describe(report: CacheReport, store: str | Path, what: str) -> list[str]:
    """The outcome, a line each."""
    lines = [
        f"{report.done:,} {what} encoded in {report.seconds:.1f} s ({report.items_per_second:,.1f}/s), "
        f"{human_bytes(report.bytes_written)} written -> {store}"
    ]
    counts = {"new": report.new, "changed": report.changed, "tried again": report.retried, "deleted": report.deleted}
    if any(count for name, count in counts.items() if name != "new"):
        lines.append(", ".join(f"{count:,} {name}" for name, count in counts.items() if count) + ".")
    if report.skipped:
        lines.append(f"{report.skipped:,} were in the store already.")
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.stage_seconds.items() if seconds)
    return [*lines, f"Seconds per stage: {stages}"]


def warnings_of(report: CacheReport) -> list[str]:
    """What was passed over or is missing, in sentences."""
    warnings = list(report.remarks)
    if report.missing > report.deleted:
        why = report.kept_because
        advice = f"none was deleted, since {why}" if why else "--delete-missing drops them"
        warnings.append(f"{report.missing:,} items of the store are no longer in the source; {advice}.")
    return warnings


def say_failed(report: CacheReport, store: str | Path) -> None:
    """Say how many items failed and why, and what lists them."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.reasons.items())
    remarks.print(f"{report.failed:,} failed ({reasons}); `tai info {store} --failed` lists them.")


def finish(
    report: CacheReport,
    store: str | Path,
    what: str,
    as_json: bool,
    *,
    facts: Mapping[str, Any] | None = None,
    lines: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> None:
    """Say what happened; leave with status 1 if items failed.

    Args:
        report: of the run.
        store: that was filled.
        what: its items, in the plural.
        as_json: JSON in place of sentences.
        facts: more for the JSON.
        lines: more sentences for people.
        warnings: sentences for stderr.
    """
    if as_json:
        rate = {"items_per_second": report.items_per_second, "store": str(store)}
        print_json({**asdict(report), **rate, **(facts or {})})
    else:
        for line in (*describe(report, store, what), *lines):
            results.print(line)
    for warning in warnings:
        remarks.print(warning, style="yellow")
    if report.failed:
        say_failed(report, store)
        raise typer.Exit(SOME_ITEMS_FAILED)
