"""Render openly licensed icon sets into sprite sheets, one per drawing style.

Training styles come from Iconify JSON packages (``npm install @iconify-json/noto ...``), which hold each icon as SVG::

    python -m tai_benchmarks.demo_clip.prepare_sprites --icons node_modules/@iconify-json --out sprites

The test style comes from the bitmaps of ``@lobehub/fluent-emoji-3d`` and goes to the engine's own folder::

    python -m tai_benchmarks.demo_clip.prepare_sprites --fluent node_modules/@lobehub/fluent-emoji-3d \
        --icons node_modules/@iconify-json --out engine/tai_engine/demo/sprites
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from PIL import Image

from tai_engine.demo.sprites import TEST_STYLE, Sprite, SpriteSheet, write_sprite_sheet
from tai_engine.errors import UserError, unknown_choice

STYLES: tuple[str, ...] = (
    "noto",
    "noto-v1",
    "twemoji",
    "fxemoji",
    "emojione",
    "streamline-emojis",
    "emojione-monotone",
    "icon-park",
    "game-icons",
    "mdi",
    "streamline-kameleon-color",
    "streamline-plump-color",
    "streamline-flex-color",
    "streamline-ultimate-color",
    "flat-color-icons",
)
"""The training styles: Apache-2.0, MIT or CC BY. Share-alike sets (openmoji, emojione-v1) and Fluent are left out."""

_MONOCHROME = frozenset({"emojione-monotone", "icon-park", "game-icons", "mdi"})
_SHARE_ALIKE = re.compile(r"-SA\b|GPL")
_WITH_SKIN_TONES = frozenset({"man", "woman", "boy", "girl"})
_SKIN_TONE = r"(-(light|medium-light|medium|medium-dark|dark)-skin-tone)?"


def class_table() -> dict[str, Any]:
    """The committed table of drawings per class (``sprites.toml``)."""
    return tomllib.loads(Path(__file__).with_name("sprites.toml").read_text(encoding="utf-8"))


def _chosen_icons(style: str, known: set[str]) -> list[tuple[str, str]]:
    """(class, icon name) for every icon of the set that the table names."""
    table = class_table()
    named = table["sets"].get(style)
    left_out = set(table["leave_out"].get(style, ()))
    chosen: list[tuple[str, str]] = []
    for class_name, slugs in (table["emoji"] if named is None else named).items():
        for slug in slugs:
            tone = _SKIN_TONE if slug in _WITH_SKIN_TONES else ""
            pattern = re.compile(re.escape(slug) + r"(-\d)?" + tone) if named is None else re.compile(re.escape(slug))
            chosen += [(class_name, name) for name in sorted(known - left_out) if pattern.fullmatch(name)]
    return chosen


def render_icon_set(folder: Path, style: str, size: int) -> SpriteSheet:
    """Render the chosen icons of one Iconify JSON package at ``size`` pixels.

    Raises ``UserError`` where the package is missing or its licence is share-alike.
    """
    from resvg_py import svg_to_bytes

    try:
        icons = json.loads((folder / style / "icons.json").read_text(encoding="utf-8"))
        info = json.loads((folder / style / "info.json").read_text(encoding="utf-8"))
        version = json.loads((folder / style / "package.json").read_text(encoding="utf-8"))["version"]
    except OSError as error:
        raise UserError(
            f"{folder / style} is not an Iconify JSON package; npm install @iconify-json/{style}."
        ) from error
    licence = info["license"]["spdx"]
    if _SHARE_ALIKE.search(licence):
        raise UserError(f"{style} is licensed {licence}: its share-alike terms would bind the weights; leave it out.")
    if "fluent" in style.lower():
        raise UserError(f"{style} is drawn like the test style, which training must never see; leave it out.")
    bodies, aliases = icons["icons"], icons.get("aliases", {})
    sprites, seen = [], set()
    for class_name, name in _chosen_icons(style, set(bodies) | set(aliases)):
        body = bodies.get(name) or bodies.get(aliases[name]["parent"])
        if body is None or body["body"] in seen:
            continue
        seen.add(body["body"])
        width = body.get("width", icons.get("width", 16))
        height = body.get("height", icons.get("height", 16))
        box = f"{body.get('left', icons.get('left', 0))} {body.get('top', icons.get('top', 0))} {width} {height}"
        drawing = body["body"].replace("currentColor", "#000000")
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
            f'height="{height}" viewBox="{box}">{drawing}</svg>'
        )
        png = bytes(svg_to_bytes(svg_string=svg, width=round(1.25 * size), skip_system_fonts=True))
        image = Image.open(io.BytesIO(png)).convert("RGBA")
        visible = image.getchannel("A").getbbox()
        if visible is not None:
            sprites.append(Sprite(class_name, name, image.crop(visible), style in _MONOCHROME))
    source = f"npm @iconify-json/{style} {version} ({info['name']}, {info['author']['name']})"
    return SpriteSheet(style, source, licence, tuple(sprites))


def read_fluent(folder: Path, icons: Path) -> SpriteSheet:
    """Read the test style's bitmaps, named by code points; the packages under ``icons`` give their short names."""
    names: dict[str, str] = {}
    aliases: dict[str, Any] = {}
    for style in ("noto", "twemoji"):
        names = json.loads((icons / style / "chars.json").read_text(encoding="utf-8")) | names
        aliases |= json.loads((icons / style / "icons.json").read_text(encoding="utf-8")).get("aliases", {})
    files = {path.stem.replace("-fe0f", ""): path for path in sorted((folder / "assets").glob("*.webp"))}
    by_name: dict[str, Path] = {}
    for code, name in names.items():
        padded = "-".join(part.zfill(4) for part in code.replace("-fe0f", "").split("-"))
        if padded in files:
            by_name.setdefault(name, files[padded])
    by_name |= {alias: by_name[entry["parent"]] for alias, entry in aliases.items() if entry["parent"] in by_name}
    version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    sprites, seen = [], set()
    for class_name, name in _chosen_icons(TEST_STYLE, set(by_name)):
        if by_name[name] not in seen:
            seen.add(by_name[name])
            image = Image.open(by_name[name]).convert("RGBA")
            sprites.append(Sprite(class_name, name, image.crop(image.getchannel("A").getbbox())))
    source = f"npm @lobehub/fluent-emoji-3d {version} (Fluent Emoji, Microsoft)"
    return SpriteSheet(TEST_STYLE, source, "MIT", tuple(sprites))


def main(arguments: list[str] | None = None) -> None:
    """Write one sprite sheet per style into the output folder."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.demo_clip.prepare_sprites", description=__doc__)
    parser.add_argument(
        "--icons", type=Path, required=True, help="folder of Iconify JSON packages (node_modules/@iconify-json)"
    )
    parser.add_argument("--fluent", type=Path, help="folder of @lobehub/fluent-emoji-3d: write the test sheet only")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    parser.add_argument("--size", type=int, default=96, help="pixels of one cell (default 96)")
    parser.add_argument("--styles", nargs="*", default=list(STYLES), help="training styles to render (default all)")
    options = parser.parse_args(arguments)
    if options.fluent is not None:
        sheets = [read_fluent(options.fluent, options.icons)]
    else:
        for style in options.styles:
            if style not in STYLES:
                raise unknown_choice("training style", style, STYLES)
        sheets = [render_icon_set(options.icons, style, options.size) for style in options.styles]
    for sheet in sheets:
        lossless = sheet.style != TEST_STYLE
        write_sprite_sheet(sheet, options.out / f"{sheet.style}.json", cell=options.size, lossless=lossless)
        print(f"{sheet.style}: {len(sheet.sprites)} drawings of {len(sheet.class_names)} classes ({sheet.licence})")


if __name__ == "__main__":
    main()
