"""One picture, some tags, and where each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tai_engine.explain.heatmap import grid_box, similarity_grid
from tai_engine.explain.overlay import draw_grid, overlay
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.sheets import GREY, INK, Cell, draw_sheet
from tai_engine.tagging.scoring import default_scoring, score

_SIDE = 320
_COLUMNS = 4


@dataclass(frozen=True, eq=False)
class ExplainedTag:
    """One tag of a picture.

    Attributes:
        name: of the tag.
        score: of the picture, by the prompts' own constants.
        grid: [h, w] fp32 cosines of its patches with the tag.
    """

    name: str
    score: float
    grid: NDArray[np.float32]

    @property
    def best_patch(self) -> tuple[int, int]:
        """Row and column of the patch that is most like the tag."""
        row, column = np.unravel_index(int(self.grid.argmax()), self.grid.shape)
        return int(row), int(column)


def explain(item: FeatureBatch, prompts: PromptSet, tags: tuple[str, ...], top: int = 3) -> tuple[ExplainedTag, ...]:
    """Scores and heatmaps of some tags of one picture.

    Args:
        item: features of one picture, with patches.
        prompts: class vectors of the same space.
        tags: which; empty for the ``top`` best of the picture.
        top: how many, where none are named.

    Raises:
        UserError: as `similarity_grid`.
    """
    with torch.inference_mode():
        scores_C = score(item, prompts, default_scoring(prompts)).scores[0]
        if not tags:
            tags = tuple(prompts.class_names[c] for c in scores_C.topk(min(top, len(scores_C))).indices.tolist())
        grids = similarity_grid(item, prompts, tags).cpu().numpy()
    columns = {name: column for column, name in enumerate(prompts.class_names)}
    return tuple(
        ExplainedTag(name, float(scores_C[columns[name]]), grid) for name, grid in zip(tags, grids, strict=True)
    )


def draw_explained(
    tags: tuple[ExplainedTag, ...], picture: Image.Image | None, recipe: Any, title: str, path: Path
) -> None:
    """Draw the picture and a heatmap of each tag side by side into a PNG; the grids alone without a picture.

    Args:
        tags: what to draw.
        picture: RGB; None if it is not at hand.
        recipe: of the store, for how the picture was cut.
        title: above all.
        path: the file.

    Raises:
        UserError: if the file cannot be written.
    """
    cells = [] if picture is None else [Cell(picture, (("the picture", INK),))]
    for tag in tags:
        shown = draw_grid(tag.grid) if picture is None else overlay(picture, tag.grid, grid_box(picture.size, recipe))
        low, high = float(tag.grid.min()), float(tag.grid.max())
        lines = ((f"{tag.name}  {tag.score:.3g}", INK), (f"patches {low:.3f} to {high:.3f}", GREY))
        cells.append(Cell(shown, lines))
    draw_sheet(cells, path, title, columns=_COLUMNS, side=_SIDE, lines=2)
