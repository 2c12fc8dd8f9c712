"""Heatmaps lie where the patches are, and their brightest part is the strongest patch."""

import numpy as np
import pytest
from PIL import Image

from tai_engine.explain.overlay import draw_grid, overlay

GRID = np.zeros((4, 4), dtype=np.float32)
GRID[0, 3] = 0.3  # the upper right corner


def brightness(picture):
    return np.asarray(picture.convert("L"), dtype=float)


def test_the_strongest_patch_is_the_brightest_part():
    pixels = brightness(overlay(Image.new("RGB", (80, 80), "grey"), GRID, (0.0, 0.0, 1.0, 1.0)))
    assert pixels.shape == (80, 80)
    assert np.unravel_index(pixels.argmax(), pixels.shape)[0] < 20
    assert np.unravel_index(pixels.argmax(), pixels.shape)[1] >= 60
    assert pixels[60:, :20].max() < 90  # what is unlike the tag is dimmed


def test_what_the_model_did_not_see_is_dimmed_and_not_coloured():
    """A wide picture, of which the model saw the square in the middle."""
    seen = overlay(Image.new("RGB", (160, 80), "grey"), GRID, (0.25, 0.0, 0.75, 1.0))
    pixels = np.asarray(seen, dtype=int)
    assert pixels.shape == (80, 160, 3)
    assert (np.ptp(pixels[:, :36], axis=2) == 0).all()
    assert (np.ptp(pixels[:, 124:], axis=2) == 0).all()
    row, column = np.unravel_index(brightness(seen).argmax(), (80, 160))
    assert row < 20
    assert 100 <= column < 120


def test_a_grid_may_be_larger_than_the_picture():
    """A model that fills up the picture sees more than there is of it."""
    seen = overlay(Image.new("RGB", (160, 80), "grey"), np.flipud(GRID), (0.0, -0.5, 1.0, 1.5))
    assert seen.size == (160, 80)


@pytest.mark.parametrize("grid", [np.full((3, 3), 0.2), np.zeros((1, 1))])
def test_a_tag_that_is_alike_everywhere_has_no_bright_part(grid):
    pixels = brightness(overlay(Image.new("RGB", (30, 30), "grey"), grid, (0.0, 0.0, 1.0, 1.0)))
    assert pixels.std() == 0


def test_the_grid_alone_has_a_square_for_each_patch():
    pixels = brightness(draw_grid(GRID, side=64))
    assert pixels.shape == (64, 64)
    assert (pixels[:16, 48:] == pixels.max()).all()
    assert (pixels[16:] == pixels.min()).all()
