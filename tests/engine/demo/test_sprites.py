import json
from pathlib import Path

import pytest
from PIL import Image

from tai_engine.demo.sentences import DRAWN_CLASSES
from tai_engine.demo.sprites import (
    TEST_STYLE,
    Sprite,
    SpriteSheet,
    embedded_sprite_sheet,
    read_sprite_sheet,
    write_sprite_sheet,
)
from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary

SPRITES = Path(__file__).parents[3] / "engine" / "tai_engine" / "demo" / "sprites"


def block(width: int, height: int, colour: tuple[int, int, int, int]) -> Image.Image:
    return Image.new("RGBA", (width, height), colour)


def sheet() -> SpriteSheet:
    sprites = (
        Sprite("cat", "wide", block(20, 10, (255, 0, 0, 255))),
        Sprite("dog", "high", block(5, 10, (0, 255, 0, 255))),
        Sprite("cat", "small", block(1, 1, (0, 0, 255, 255))),
    )
    return SpriteSheet("blocks", "made here", "CC0-1.0", sprites)


def test_written_sheet_reads_back_fitted_to_its_cells(tmp_path: Path) -> None:
    write_sprite_sheet(sheet(), tmp_path / "blocks.json", cell=18, columns=2)

    read = read_sprite_sheet(tmp_path / "blocks.json")

    assert (read.style, read.source, read.licence) == ("blocks", "made here", "CC0-1.0")
    assert [(sprite.class_name, sprite.slug) for sprite in read.sprites] == [
        ("cat", "wide"),
        ("dog", "high"),
        ("cat", "small"),
    ]
    # the long side fills the cell but for one pixel on each side: 16
    assert [sprite.image.size for sprite in read.sprites] == [(16, 8), (8, 16), (16, 16)]
    assert read.sprites[0].image.getpixel((8, 4)) == (255, 0, 0, 255)
    assert read.sprites[2].image.getpixel((8, 8)) == (0, 0, 255, 255)
    assert read.class_names == ("cat", "dog")
    assert not read.sprites[0].monochrome


def test_digest_knows_pixels_and_size_but_not_names() -> None:
    red = Sprite("cat", "a", block(2, 3, (255, 0, 0, 255)))

    assert red.digest() == Sprite("dog", "b", block(2, 3, (255, 0, 0, 255))).digest()
    assert red.digest() != Sprite("cat", "a", block(3, 2, (255, 0, 0, 255))).digest()
    assert red.digest() != Sprite("cat", "a", block(2, 3, (254, 0, 0, 255))).digest()


def test_index_without_picture(tmp_path: Path) -> None:
    write_sprite_sheet(sheet(), tmp_path / "blocks.json", cell=18)
    (tmp_path / "blocks.webp").unlink()

    with pytest.raises(UserError, match=r"blocks\.json has no picture beside it"):
        read_sprite_sheet(tmp_path / "blocks.json")


def test_picture_of_another_size(tmp_path: Path) -> None:
    write_sprite_sheet(sheet(), tmp_path / "blocks.json", cell=18, columns=3)
    record = json.loads((tmp_path / "blocks.json").read_text())
    (tmp_path / "blocks.json").write_text(json.dumps({**record, "cell": 20}))

    with pytest.raises(UserError, match=r"54 x 18 pixels, but its index describes 60 x 20"):
        read_sprite_sheet(tmp_path / "blocks.json")


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"cell": 3}'])
def test_index_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.json").write_text(text)

    with pytest.raises(UserError, match=r"odd\.json is not the index of a sprite sheet"):
        read_sprite_sheet(tmp_path / "odd.json")


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json is not the index of a sprite sheet"):
        read_sprite_sheet(tmp_path / "none.json")


def test_embedded_sheet_is_the_test_style_and_draws_every_drawn_class() -> None:
    embedded = embedded_sprite_sheet()

    assert embedded.style == TEST_STYLE
    assert embedded.licence == "MIT"
    assert set(embedded.class_names) == set(DRAWN_CLASSES)
    assert len(DRAWN_CLASSES) == 63
    assert set(DRAWN_CLASSES) <= set(load_vocabulary("coco80").names)
    assert len({sprite.slug for sprite in embedded.sprites}) == len(embedded.sprites)


def test_embedded_sheet_is_at_most_two_megabytes() -> None:
    assert 100_000 < sum(path.stat().st_size for path in SPRITES.iterdir()) <= 2_000_000
