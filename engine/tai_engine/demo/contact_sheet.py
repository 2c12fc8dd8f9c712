"""One picture to look at: photographs with their tags, and how likely each is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tai_engine.sheets import GREY, INK, Cell, draw_sheet

COLUMNS = 5
SIDE = 208
MOST_TAGS = 5


@dataclass(frozen=True)
class TaggedPhotograph:
    """A photograph and what was said of it.

    Attributes:
        path: of the file.
        tags: names and probabilities, best first.
    """

    path: Path
    tags: tuple[tuple[str, float], ...]


def draw_contact_sheet(photographs: Sequence[TaggedPhotograph], path: Path, title: str) -> None:
    """Draw the photographs as the model sees them, cut to squares, each with its best tags and a bar for each.

    Memory: the sheet, and the squares.

    Raises:
        UserError: if the file cannot be written.
    """
    draw_sheet(_cells(photographs), path, title, columns=COLUMNS, side=SIDE, lines=MOST_TAGS)


def square_of(path: Path, side: int = SIDE) -> Image.Image:
    """The middle of a photograph, RGB, ``side`` pixels wide and high."""
    with Image.open(path) as picture:
        least = min(picture.size)
        left, upper = (picture.width - least) // 2, (picture.height - least) // 2
        square = picture.convert("RGB").crop((left, upper, left + least, upper + least))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def _cells(photographs: Sequence[TaggedPhotograph]) -> Iterator[Cell]:
    for one in photographs:
        shown = one.tags[:MOST_TAGS]
        lines = tuple((f"{name}  {100 * probability:.0f} %", INK) for name, probability in shown)
        left_out = (("no word is more likely than not", GREY),)
        yield Cell(square_of(one.path), lines or left_out, tuple(probability for _, probability in shown))
