"""One PNG to look at: pictures with their tags, right and wrong ones marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tai_engine.files import atomic_path

COLUMNS = 10
PICTURE = 128
LINE = 15
LINES = 5
MARGIN = 8
RIGHT, WRONG, MISSED, PAPER = "#1a7f37", "#cf222e", "#8c959f", "#ffffff"


@dataclass(frozen=True)
class Entry:
    """A picture and what was said of it.

    Attributes:
        picture: the file.
        tags: what the engine gave, best first.
        truth: what is in it.
    """

    picture: Path
    tags: tuple[str, ...]
    truth: frozenset[str]

    def lines(self) -> list[tuple[str, str]]:
        """(text, colour) per line: the tags in order, right or wrong, then what was missed."""
        marked = [(f"+ {tag}", RIGHT) if tag in self.truth else (f"x {tag}", WRONG) for tag in self.tags]
        return marked + [(f"- {name}", MISSED) for name in sorted(self.truth - set(self.tags))]


def draw_contact_sheet(entries: Sequence[Entry], path: Path, title: str) -> None:
    """Draw ``entries`` in a grid into the PNG ``path``: + right, x wrong, - missed. Holds one picture beside the sheet.

    Raises:
        UserError: if the file cannot be written.
    """
    columns = min(COLUMNS, max(1, len(entries)))
    rows = -(-len(entries) // columns)
    cell_width, cell_height = PICTURE + MARGIN, PICTURE + LINES * LINE + MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + 2 * LINE + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    draw.text((MARGIN, MARGIN), title, fill="black", font=ImageFont.load_default(14))
    for index, entry in enumerate(entries):
        left = MARGIN + index % columns * cell_width
        top = 2 * LINE + MARGIN + index // columns * cell_height
        with Image.open(entry.picture) as picture:
            sheet.paste(picture.convert("RGB").resize((PICTURE, PICTURE), Image.Resampling.BICUBIC), (left, top))
        lines = entry.lines()
        shown = lines if len(lines) <= LINES else [*lines[: LINES - 1], (f"... {len(lines) - LINES + 1} more", MISSED)]
        for line, (text, colour) in enumerate(shown):
            draw.text((left, top + PICTURE + line * LINE), text, fill=colour, font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
