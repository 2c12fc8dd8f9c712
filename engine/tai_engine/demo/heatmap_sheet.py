"""Where in a photograph some of its tags are, on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tai_engine.demo.contact_sheet import TaggedPhotograph, square_of
from tai_engine.explain.heatmap import similarity_grid
from tai_engine.explain.overlay import overlay
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.sheets import GREY, INK, Cell, draw_sheet
from tai_engine.store import FeatureStore

COLUMNS = 6
SIDE = 172
_WHOLE = (0.0, 0.0, 1.0, 1.0)


def best_pairs(photographs: Sequence[TaggedPhotograph], most: int) -> list[tuple[TaggedPhotograph, str]]:
    """Photographs with a tag each, the likeliest first, no tag and no photograph twice; equals in the order given."""
    ranked = sorted(
        ((probability, one, name) for one in photographs for name, probability in one.tags), key=lambda row: -row[0]
    )
    pairs: list[tuple[TaggedPhotograph, str]] = []
    for _, one, name in ranked:
        if len(pairs) < most and all(one is not other and name != tag for other, tag in pairs):
            pairs.append((one, name))
    return pairs


def draw_heatmaps(
    pairs: Sequence[tuple[TaggedPhotograph, str]], store: FeatureStore, prompts: PromptSet, path: Path, title: str
) -> None:
    """Draw each photograph beside itself with the tag's heatmap over it.

    Memory: the sheet, and two pictures of every pair.

    Args:
        pairs: what to draw; ids of the store are the photographs' file names.
        store: of the photographs, with patches, made by a model that cuts them to squares.
        prompts: with the tags, in the store's space.
        path: the file.
        title: above all.

    Raises:
        UserError: if the file cannot be written.
    """
    cells = []
    for one, tag in pairs:
        square = square_of(one.path, 2 * SIDE)
        grid_hw = similarity_grid(store.read_ids([one.path.name]), prompts, [tag])[0].cpu().numpy()
        low, high = float(grid_hw.min()), float(grid_hw.max())
        cells.append(Cell(square, ((one.path.stem, GREY),)))
        lines = ((f"where: {tag}", INK), (f"cosines {low:.2f} to {high:.2f}", GREY))
        cells.append(Cell(overlay(square, grid_hw, _WHOLE), lines))
    draw_sheet(cells, path, title, columns=COLUMNS, side=SIDE, lines=2)
