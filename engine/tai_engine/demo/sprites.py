"""Sprite sheets: one picture with a grid of cut-out drawings of one style, and a JSON index that names them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image

from tai_engine.errors import UserError
from tai_engine.files import atomic_path, write_atomically
from tai_engine.json_documents import parse_json

TEST_STYLE = "fluent-emoji-3d"
"""The style that is only ever tested on; its sheet ships with the package."""

_SHEET_SUFFIXES = (".webp", ".png")


@dataclass(frozen=True, eq=False)
class Sprite:
    """One drawing: an RGBA picture cut to its visible part, the class it shows and the name it has in its set."""

    class_name: str
    slug: str
    image: Image.Image
    monochrome: bool = False

    def digest(self) -> str:
        """The SHA-256 of size and visible pixels, by which a copied sprite is known under any name."""
        pixels = np.array(self.image)
        pixels[pixels[..., 3] == 0] = 0  # colours that nobody sees may change when a sheet is written
        return hashlib.sha256(repr(self.image.size).encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class SpriteSheet:
    """All sprites of one drawing style, with where they come from and their licence."""

    style: str
    source: str
    licence: str
    sprites: tuple[Sprite, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes drawn in this style, sorted, each once."""
        return tuple(sorted({sprite.class_name for sprite in self.sprites}))


def read_sprite_sheet(index: Path) -> SpriteSheet:
    """Read the sheet whose JSON index is ``index``; its picture lies beside it as ``.webp`` or ``.png``.

    The whole sheet is held in memory (a few hundred drawings of about 100 pixels, some ten megabytes).
    Raises ``UserError`` where the index or its picture is missing or does not fit the other.
    """
    try:
        record = parse_json(index.read_text(encoding="utf-8"))
        cell, columns, entries = int(record["cell"]), int(record["columns"]), list(record["sprites"])
        style, source, licence = str(record["style"]), str(record["source"]), str(record["licence"])
        named = [(str(entry["class"]), str(entry["slug"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{index} is not the index of a sprite sheet ({error!r}); write it with prepare_sprites."
        ) from error
    picture = next(
        (index.with_suffix(suffix) for suffix in _SHEET_SUFFIXES if index.with_suffix(suffix).exists()), None
    )
    if picture is None:
        raise UserError(f"{index} has no picture beside it: {index.stem}.webp or {index.stem}.png is missing.")
    with Image.open(picture) as opened:
        grid = opened.convert("RGBA")
    rows = -(-len(named) // columns)
    if grid.size != (columns * cell, rows * cell):
        wanted = f"{columns * cell} x {rows * cell}"
        raise UserError(f"{picture} is {grid.width} x {grid.height} pixels, but its index describes {wanted}.")
    sprites = []
    for number, (class_name, slug) in enumerate(named):
        left, top = number % columns * cell, number // columns * cell
        drawing = grid.crop((left, top, left + cell, top + cell))
        visible = drawing.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
        if visible is None:
            raise UserError(f"Sprite {slug!r} of {picture} is empty.")
        sprites.append(Sprite(class_name, slug, drawing.crop(visible), bool(record.get("monochrome", False))))
    return SpriteSheet(style, source, licence, tuple(sprites))


def embedded_sprite_sheet() -> SpriteSheet:
    """The sheet that ships with the package: the test style, never used in training."""
    with as_file(files("tai_engine.demo").joinpath("sprites")) as folder:
        return read_sprite_sheet(folder / f"{TEST_STYLE}.json")


def write_sprite_sheet(sheet: SpriteSheet, index: Path, *, cell: int, columns: int = 16, lossless: bool = True) -> None:
    """Write ``sheet`` as ``index`` (JSON) and a WebP picture beside it, each drawing fitted and centred in its cell."""
    rows = -(-len(sheet.sprites) // columns)
    grid = Image.new("RGBA", (columns * cell, rows * cell))
    entries = []
    for number, sprite in enumerate(sheet.sprites):
        scale = (cell - 2) / max(sprite.image.size)
        size = (max(1, round(sprite.image.width * scale)), max(1, round(sprite.image.height * scale)))
        drawing = sprite.image if size == sprite.image.size else sprite.image.resize(size, Image.Resampling.LANCZOS)
        left = number % columns * cell + (cell - size[0]) // 2
        top = number // columns * cell + (cell - size[1]) // 2
        grid.paste(drawing, (left, top))
        entries.append({"class": sprite.class_name, "slug": sprite.slug})
    record = {
        "style": sheet.style,
        "source": sheet.source,
        "licence": sheet.licence,
        "monochrome": any(sprite.monochrome for sprite in sheet.sprites),
        "cell": cell,
        "columns": columns,
        "sprites": entries,
    }
    with atomic_path(index.with_suffix(".webp")) as temporary:
        grid.save(temporary, format="WEBP", lossless=lossless, quality=90, method=3 if lossless else 6)
    write_atomically(index, json.dumps(record, indent=1) + "\n")
