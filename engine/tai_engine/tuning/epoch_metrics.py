"""Figures of the epochs of a run, and their picture: training and held-out loss, and held-out mAP."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _PANEL, _MARGIN = 720, 240, 56
_INK, _GRID = (40, 40, 40), (222, 222, 222)
_COLOURS = ((31, 119, 180), (214, 96, 20), (44, 140, 60), (140, 80, 170))

Line = tuple[str, Sequence[float | None]]


@dataclass(frozen=True)
class EpochMetrics:
    """One line of ``metrics.jsonl``.

    Attributes:
        epoch: from 1.
        steps: done since the beginning.
        loss: mean over the epoch's steps; of a batch it is the mean over its sentences, coarse and fine summed.
        learning_rate: of the epoch.
        held_out_loss: of held-out sentences at the end of the epoch; None without any.
        held_out_map: mAP of their merged scores, from 0 to 1.
        held_out_map_coarse: of the coarse scores.
        held_out_map_fine: of the fine ones.
        seconds: wall time of the epoch's steps.
        steps_per_second: their rate.
    """

    epoch: int
    steps: int
    loss: float
    learning_rate: float
    held_out_loss: float | None
    held_out_map: float | None
    held_out_map_coarse: float | None
    held_out_map_fine: float | None
    seconds: float
    steps_per_second: float


def draw_curve(history: Sequence[EpochMetrics]) -> bytes:
    """A PNG with two panels; what was not measured is not drawn. Axes span the values and do not begin at 0."""
    losses: list[Line] = [
        ("training loss", [m.loss for m in history]),
        ("held-out loss", [m.held_out_loss for m in history]),
    ]
    precisions: list[Line] = [
        (f"held-out mAP %{name}", [None if v is None else 100 * v for v in values])
        for name, values in (
            (" merged", [m.held_out_map for m in history]),
            (" coarse", [m.held_out_map_coarse for m in history]),
            (" fine", [m.held_out_map_fine for m in history]),
        )
    ]
    panels = [lines for lines in (losses, precisions) if any(v is not None for _, values in lines for v in values)]
    image = Image.new("RGB", (_WIDTH, max(1, len(panels)) * _PANEL), "white")
    for number, lines in enumerate(panels):
        _draw_panel(ImageDraw.Draw(image), number * _PANEL, lines, len(history))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_panel(draw: ImageDraw.ImageDraw, top: int, lines: Sequence[Line], epochs: int) -> None:
    font = ImageFont.load_default()
    left, right, high, low = _MARGIN, _WIDTH - 16, top + 34, top + _PANEL - 34
    known = [v for _, values in lines for v in values if v is not None and math.isfinite(v)]
    if not known:
        return
    least, most = min(known), max(known)
    if most - least < 1e-9 * max(1.0, abs(most)):
        least, most = least - 0.5, most + 0.5
    xs = [left + (right - left) * (epoch / (epochs - 1) if epochs > 1 else 0.5) for epoch in range(epochs)]
    for tick in range(5):
        value = least + (most - least) * tick / 4
        y = low - (low - high) * (value - least) / (most - least)
        draw.line([(left, y), (right, y)], fill=_GRID)
        draw.text((left - 6, y), f"{value:.4g}", fill=_INK, font=font, anchor="rm")
    for epoch in sorted({round((epochs - 1) * tick / 8) for tick in range(9)}):
        draw.text((xs[epoch], low + 6), str(epoch + 1), fill=_INK, font=font, anchor="ma")
    draw.text(((left + right) / 2, low + 18), "epoch", fill=_INK, font=font, anchor="ma")
    draw.line([(left, high), (left, low), (right, low)], fill=_INK)
    label_x: float = left
    for (name, values), colour in zip(lines, _COLOURS, strict=False):
        points = [
            (x, low - (low - high) * (value - least) / (most - least))
            for x, value in zip(xs, values, strict=True)
            if value is not None and math.isfinite(value)
        ]
        if not points:
            continue
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
        for x, y in points:
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=colour)
        draw.text((label_x, top + 12), name, fill=colour, font=font)
        label_x += draw.textlength(name, font=font) + 24
