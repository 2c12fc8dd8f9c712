from pathlib import Path

import pytest
from PIL import Image

from tai_engine.demo.contact_sheet import COLUMNS, SIDE, TaggedPhotograph, draw_contact_sheet, square_of
from tai_engine.errors import UserError


def photographs(folder: Path, count: int) -> list[TaggedPhotograph]:
    made = []
    for n in range(count):
        Image.new("RGB", (20, 30), (n * 20, 255 - n * 20, 7)).save(folder / f"{n}.png")
        made.append(TaggedPhotograph(folder / f"{n}.png", (("cat", 1.0), ("dog", 0.5))))
    return made


@pytest.mark.parametrize("count", [0, 1, COLUMNS, COLUMNS + 1])
def test_every_photograph_stands_in_its_cell(tmp_path: Path, count: int):
    draw_contact_sheet(photographs(tmp_path, count), tmp_path / "sheet.png", "title")
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert {(n * 20, 255 - n * 20, 7) for n in range(count)} <= colours


def test_a_bar_is_as_long_as_the_tag_is_likely(tmp_path: Path):
    draw_contact_sheet(photographs(tmp_path, 1), tmp_path / "sheet.png", "title")
    with Image.open(tmp_path / "sheet.png") as sheet:
        counts = {colour: count for count, colour in sheet.convert("RGB").getcolors(1 << 24)}
    full, empty = counts[0x2F, 0x81, 0xC1], counts[0xE6, 0xEA, 0xEF]
    # One bar of two is full, the other half: 46 and 23 pixels of 46, 7 high.
    assert (full, empty) == (7 * (46 + 23), 7 * 23)


def test_a_photograph_without_tags_says_so(tmp_path: Path):
    made = [TaggedPhotograph(one.path, ()) for one in photographs(tmp_path, 1)]
    draw_contact_sheet(made, tmp_path / "without.png", "title")
    draw_contact_sheet(photographs(tmp_path, 1), tmp_path / "with.png", "title")
    assert (tmp_path / "without.png").read_bytes() != (tmp_path / "with.png").read_bytes()


def test_the_middle_of_a_photograph_is_what_is_shown(tmp_path: Path):
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    wide.save(tmp_path / "wide.png")
    square = square_of(tmp_path / "wide.png")
    assert square.size == (SIDE, SIDE)
    assert square.getcolors() == [(SIDE * SIDE, (0, 0, 255))]


def test_an_unwritable_place_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"sheet\.png"):
        draw_contact_sheet([], tmp_path / "file" / "sheet.png", "")
