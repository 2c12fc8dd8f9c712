"""What a search found, as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from tai_engine.decoding.decode import DecodeOptions, decode_picture
from tai_engine.errors import ItemError
from tai_engine.searching.search import Hit
from tai_engine.sheets import GREY, INK, Cell, draw_sheet
from tai_engine.sources.ids import picture_path

_COLUMNS = 5
_SIDE = 200


def draw_found(found: Sequence[tuple[str, Sequence[Hit]]], images: Path, path: Path) -> int:
    """Draw the hits of each query in order into a PNG; gives how many pictures were not in the folder.

    Memory: the sheet and its pictures, each no larger than it is drawn.

    Raises:
        UserError: if the file cannot be written.
    """
    cells = list(_cells(found, images))
    title = "; ".join(query for query, _ in found)
    draw_sheet(cells, path, title, columns=_COLUMNS, side=_SIDE)
    return sum(cell.picture is None for cell in cells)


def _cells(found: Sequence[tuple[str, Sequence[Hit]]], images: Path) -> Iterator[Cell]:
    for query, hits in found:
        for rank, hit in enumerate(hits, 1):
            lines = ((f"{rank}. {query}", INK), (hit.id, GREY), (f"{hit.score:.3g}", GREY))
            yield Cell(small_picture(images, hit.id), lines)


def small_picture(images: Path, item_id: str) -> Image.Image | None:
    """A picture of the folder, no larger than a cell; None if it cannot be had."""
    try:
        shown = decode_picture(picture_path(images, item_id), DecodeOptions(draft=1.0), 2 * _SIDE).image
    except (ItemError, ValueError):
        return None
    shown.thumbnail((_SIDE, _SIDE))
    return shown
