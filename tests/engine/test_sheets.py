"""Sheets: pictures where they belong, in their own shape."""

import pytest
from PIL import Image

from tai_engine.errors import UserError
from tai_engine.sheets import GREY, INK, Cell, draw_sheet


def colour_at(path, x, y):
    with Image.open(path) as sheet:
        return sheet.convert("RGB").getpixel((x, y))


def test_pictures_keep_their_shape_and_stand_in_rows(tmp_path):
    wide, tall = Image.new("RGB", (400, 100), "red"), Image.new("RGB", (50, 200), "blue")
    path = tmp_path / "sheet.png"
    draw_sheet([Cell(wide, (("wide", INK),)), Cell(tall), Cell(None)], path, "title", columns=2, side=100, lines=1)
    with Image.open(path) as sheet:
        assert sheet.size == (2 * 112 + 12, 46 + 2 * (100 + 17 + 12))
    assert colour_at(path, 12 + 50, 46 + 50) == (255, 0, 0)
    assert colour_at(path, 12 + 50, 46 + 30) == (255, 255, 255)  # above the wide one
    assert colour_at(path, 124 + 50, 46 + 5) == (0, 0, 255)
    assert colour_at(path, 124 + 30, 46 + 50) == (255, 255, 255)  # beside the tall one
    assert colour_at(path, 12, 46 + 129 + 10) == tuple(bytes.fromhex(GREY[1:]))  # the frame of the missing one


def test_long_lines_are_cut_at_the_border_of_their_cell(tmp_path):
    path = tmp_path / "sheet.png"
    lines = (("word " * 50, "#000000"),)
    draw_sheet([Cell(None, lines), Cell(None)], path, "", columns=2, side=100, lines=1)
    with Image.open(path) as sheet:
        below = sheet.convert("L").crop((112, 46 + 102, 124, 46 + 120))
    assert min(below.getdata()) == 255


def test_no_picture_at_all_and_a_place_that_cannot_be_written(tmp_path):
    draw_sheet([], tmp_path / "empty.png", "nothing", columns=5)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="in the way"):
        draw_sheet([], tmp_path / "file" / "sheet.png", "", columns=5)
