"""Sheets of pictures to look at: a grid of pictures, each with some lines of text below it, in one file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tai_engine.files import atomic_path

INK, GREY, PAPER = "#1f2328", "#59636e", "#ffffff"
_BAR, _BAR_PAPER = "#2f81c1", "#e6eaef"
_BAR_SIZE = (46, 7)
_MARGIN = 12
_TEXT, _TITLE = 12, 17
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG_QUALITY = 87


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture of a sheet.

    Attributes:
        picture: any size and shape; None draws an empty frame.
        lines: (text, colour) each.
        shares: from 0 to 1, drawn as a bar at the end of the lines, the first of the first; none for none.
    """

    picture: Image.Image | None
    lines: tuple[tuple[str, str], ...] = field(default=())
    shares: tuple[float, ...] = field(default=())


def draw_sheet(
    cells: Iterable[Cell], path: str | Path, title: str, *, columns: int, side: int = 200, lines: int = 3
) -> None:
    """Draw the cells in rows of ``columns``; pictures keep their shape, long lines are cut with a mark.

    Memory: the sheet, and one cell at a time.

    Args:
        cells: in reading order.
        path: the file, a JPEG if its suffix says so, else a PNG.
        title: above all.
        columns: at most so many in a row.
        side: of the square that a picture is fitted into, pixels.
        lines: of text that there is room for below each picture.

    Raises:
        UserError: if the file cannot be written.
    """
    kept = list(cells)
    columns = max(1, min(columns, len(kept)))
    step = _TEXT + 5
    cell_width, cell_height = side + _MARGIN, side + lines * step + _MARGIN
    rows = -(-len(kept) // columns)
    top = _MARGIN + 2 * _TITLE
    sheet = Image.new("RGB", (columns * cell_width + _MARGIN, top + rows * cell_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font(_TITLE))
    for number, cell in enumerate(kept):
        left, upper = _MARGIN + number % columns * cell_width, top + number // columns * cell_height
        if cell.picture is None:
            draw.rectangle((left, upper, left + side - 1, upper + side - 1), outline=GREY)
        else:
            fitted = cell.picture.convert("RGB")
            fitted.thumbnail((side, side), Image.Resampling.LANCZOS)
            sheet.paste(fitted, (left + (side - fitted.width) // 2, upper + (side - fitted.height) // 2))
        for line, (text, colour) in enumerate(cell.lines[:lines]):
            below = upper + side + 3 + line * step
            width = side - (_BAR_SIZE[0] + _MARGIN // 2 if line < len(cell.shares) else 0)
            draw.text((left, below), _cut(draw, text, width), fill=colour, font=font(_TEXT))
            if line < len(cell.shares):
                _bar(draw, left + side, below + step // 2 + 1, cell.shares[line])
    with atomic_path(path) as temporary:
        if Path(path).suffix.lower() in _JPEG_SUFFIXES:
            sheet.save(temporary, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
        else:
            sheet.save(temporary, format="PNG")


def _bar(draw: ImageDraw.ImageDraw, right: int, middle: int, share: float) -> None:
    """Full for 1 and empty for 0, its right end and its middle where they are said."""
    width, height = _BAR_SIZE
    left, upper = right - width, middle - height // 2
    draw.rectangle((left, upper, right - 1, upper + height - 1), fill=_BAR_PAPER)
    filled = round(width * min(max(share, 0.0), 1.0))
    if filled:
        draw.rectangle((left, upper, left + filled - 1, upper + height - 1), fill=_BAR)


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Latin, Greek, Cyrillic, Arabic, Hebrew and many signs."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _cut(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font=font(_TEXT)) <= width:
        return text
    while text and draw.textlength(text + "…", font=font(_TEXT)) > width:
        text = text[:-1]
    return text + "…"
