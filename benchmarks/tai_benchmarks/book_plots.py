"""The book's pictures: each as two PNG files, for pages that are light and pages that are dark."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from tai_benchmarks.bench_scaling import CASES
from tai_benchmarks.book_targets import SpeedTarget
from tai_benchmarks.protocol import BenchRow
from tai_engine.files import write_atomically

# Paper, ink, line and second colour of each theme; all pairs on paper have a contrast above 4.5.
THEMES = {"light": ("#ffffff", "#1f2328", "#0550ae", "#bc4c00"), "dark": ("#0d1117", "#e6edf3", "#79c0ff", "#ffa657")}
_AXES = {"items": "pictures", "classes": "words", "patches": "patches a picture", "sentences": "sentences"}


def draw_plots(folder: Path, rows: Mapping[str, list[BenchRow]], targets: Sequence[SpeedTarget]) -> list[str]:
    """Draw what there is to draw; gives the stems of the files, ``<stem>-light.png`` and ``<stem>-dark.png``.

    Raises:
        UserError: when the folder cannot be written.
    """
    done = []
    measured = [target for target in targets if target.share is not None]
    for theme in THEMES:
        if rows.get("scaling"):
            write_atomically(folder / f"scaling-{theme}.png", scaling_plot(rows["scaling"], theme))
            done.append("scaling")
        if measured:
            write_atomically(folder / f"targets-{theme}.png", targets_plot(measured, theme))
            done.append("targets")
    return list(dict.fromkeys(done))


def scaling_plot(rows: Sequence[BenchRow], theme: str) -> bytes:
    """The curves as a PNG: rate against number, both logarithmic, a small plot each."""
    from matplotlib.figure import Figure

    paper, ink, line, _ = THEMES[theme]
    curves = {case: [row for row in rows if row.case.startswith(f"{case}/")] for case in CASES}
    curves = {case: points for case, points in curves.items() if points}
    figure = Figure(figsize=(3.2 * len(curves), 2.9), facecolor=paper, layout="constrained")
    for axes, (case, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        numbers = [float(str(row.extra["point"])) for row in points]
        axes.plot(numbers, [row.value for row in points], color=line, marker="o", linewidth=1.8)
        axes.fill_between(numbers, [row.p20 for row in points], [row.p80 for row in points], color=line, alpha=0.25)
        axes.set(xscale="log", yscale="log", xlabel=_AXES[case], ylabel=points[0].unit)
        _dress(axes, paper, ink)
    return _png(figure)


def targets_plot(targets: Sequence[SpeedTarget], theme: str) -> bytes:
    """How much of each target is reached, as bars; what is left of the line is missed."""
    from matplotlib.figure import Figure

    paper, ink, line, second = THEMES[theme]
    figure = Figure(figsize=(9, 0.8 + 0.42 * len(targets)), facecolor=paper, layout="constrained")
    axes = figure.subplots()
    names = [target.what.replace("`", "") for target in targets][::-1]
    shares = [float(target.share or 0) for target in targets][::-1]
    colours = [line if target.reached else second for target in targets][::-1]
    axes.barh(names, shares, color=colours)
    axes.axvline(1, color=ink, linewidth=1)
    # Bars begin well before the line whatever they are; powers of ten would leave most pictures one labelled tick.
    begin, end = min([0.5, *(0.8 * share for share in shares)]), max([1.0, *shares]) * 1.1
    axes.set(xscale="log", xlim=(begin, end), xlabel="share of the target (1 = reached)")
    ticks = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if begin <= tick <= end])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    _dress(axes, paper, ink)
    return _png(figure)


def _dress(axes: object, paper: str, ink: str) -> None:
    axes.set_facecolor(paper)  # type: ignore[attr-defined]  # matplotlib has no types
    axes.tick_params(which="both", colors=ink)  # type: ignore[attr-defined]
    for label in (axes.xaxis.label, axes.yaxis.label):  # type: ignore[attr-defined]
        label.set_color(ink)
    for spine in axes.spines.values():  # type: ignore[attr-defined]
        spine.set_color(ink)
    axes.grid(visible=True, which="major", color=ink, alpha=0.2)  # type: ignore[attr-defined]


def _png(figure: object) -> bytes:
    buffer = io.BytesIO()
    # Nothing in it that changes from run to run.
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})  # type: ignore[attr-defined]
    return buffer.getvalue()
