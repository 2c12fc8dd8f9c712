from pathlib import Path

import pytest
from PIL import Image

from tai_engine.demo.contact_sheet import LINE, LINES, MARGIN, MISSED, PICTURE, RIGHT, WRONG, Entry, draw_contact_sheet
from tai_engine.errors import UserError


def test_lines_mark_right_wrong_and_missed():
    entry = Entry(Path("x.png"), ("cat", "dog"), frozenset({"dog", "zebra", "bus"}))
    assert entry.lines() == [("x cat", WRONG), ("+ dog", RIGHT), ("- bus", MISSED), ("- zebra", MISSED)]


@pytest.mark.parametrize(("count", "columns", "rows"), [(0, 1, 0), (1, 1, 1), (10, 10, 1), (11, 10, 2)])
def test_every_picture_stands_in_its_cell(tmp_path: Path, count: int, columns: int, rows: int):
    entries = []
    for n in range(count):
        Image.new("RGB", (20, 30), (n * 20, 255 - n * 20, 7)).save(tmp_path / f"{n}.png")
        entries.append(Entry(tmp_path / f"{n}.png", ("cat",), frozenset()))
    draw_contact_sheet(entries, tmp_path / "sheet.png", "title")
    with Image.open(tmp_path / "sheet.png") as sheet:
        width, height = PICTURE + MARGIN, PICTURE + LINES * LINE + MARGIN
        assert sheet.size == (columns * width + MARGIN, rows * height + 2 * LINE + MARGIN)
        for n in range(count):
            centre = (MARGIN + n % 10 * width + PICTURE // 2, 2 * LINE + MARGIN + n // 10 * height + PICTURE // 2)
            assert sheet.getpixel(centre) == (n * 20, 255 - n * 20, 7)


def test_many_tags_are_cut_with_a_count(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    entry = Entry(tmp_path / "a.png", tuple("abcdefgh"), frozenset())
    draw_contact_sheet([entry], tmp_path / "sheet.png", "")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 2 * LINE + MARGIN + PICTURE + LINES * LINE + MARGIN


def test_an_unwritable_place_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"sheet\.png"):
        draw_contact_sheet([], tmp_path / "file" / "sheet.png", "")
