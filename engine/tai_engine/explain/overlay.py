"""Heatmaps to look at: a grid of similarities laid over the picture that it was computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tai_engine.explain.heatmap import Box

_STRENGTH = 0.62
_GRID_SIDE = 256


def overlay(picture: Image.Image, grid_hw: NDArray[Any], box: Box) -> Image.Image:
    """The picture with the grid laid over where it lies, weak parts pale and strong ones bright.

    Colours span the grid's own values, so that a tag that is nowhere still has a brightest part: the numbers, not the
    colours, say how like it is.

    Args:
        picture: RGB, any size.
        grid_hw: [h, w] similarities.
        box: where the grid lies on the picture (see `tai_engine.explain.heatmap.grid_box`); it may be larger.
    """
    width, height = picture.size
    left, top, right, bottom = (round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True))
    share = _spread(grid_hw)
    size = (max(1, right - left), max(1, bottom - top))
    smooth = Image.fromarray((255 * share).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    values = Image.new("L", (width, height), 0)
    values.paste(smooth, (left, top))
    values_HW: NDArray[Any] = np.asarray(values, dtype=np.float32) / 255
    base_HWC: NDArray[Any] = np.asarray(picture.convert("RGB"), dtype=np.float32)
    alpha_HW1 = (_STRENGTH * values_HW)[:, :, None]
    # What is unlike the tag is dimmed a little, so that the rest stands out.
    dimmed_HWC = (1 - alpha_HW1) * (0.55 + 0.45 * values_HW[:, :, None]) * base_HWC
    mixed = dimmed_HWC + alpha_HW1 * _colours(values_HW)
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def draw_grid(grid_hw: NDArray[Any], side: int = _GRID_SIDE) -> Image.Image:
    """The grid alone, for pictures that are not at hand: one square a patch."""
    pixels = _colours(_spread(grid_hw).astype(np.float32)).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def _spread(grid_hw: NDArray[Any]) -> NDArray[Any]:
    """0 to 1 from the least to the greatest; all 0 where every part is alike."""
    grid = np.asarray(grid_hw, dtype=np.float64)
    low, high = float(grid.min()), float(grid.max())
    return (grid - low) / (high - low) if high > low else np.zeros_like(grid)


def _colours(values: NDArray[Any]) -> NDArray[Any]:
    """RGB from 0 to 255, in a scale that grows brighter all the way and that the colour-blind can read."""
    from matplotlib import colormaps

    return np.asarray(255 * colormaps["inferno"](values)[..., :3])
