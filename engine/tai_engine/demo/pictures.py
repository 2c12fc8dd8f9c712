"""Pictures to try the engine on: scenes drawn into a folder, with a file of truth beside them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from tai_engine.demo.scenes import SceneGenerator
from tai_engine.demo.sprites import SpriteSheet, embedded_sprite_sheet
from tai_engine.files import write_atomically

TRUTH_NAME = "truth.jsonl"


def draw_pictures(
    folder: Path,
    count: int,
    seed: int = 0,
    image_size: int = 256,
    *,
    sheets: Sequence[SpriteSheet] | None = None,
    lossless: bool = False,
) -> list[tuple[str, frozenset[str]]]:
    """Draw ``count`` scenes as JPEG files into ``folder``, and what is in each into a list.

    The list is ``truth.jsonl`` with ``{"file_name", "labels"}`` a line, as `tai evaluate` reads it. The same seed gives
    the same pictures; those that are there already are left as they are.

    Args:
        folder: made if there is none.
        count: how many.
        seed: another one draws other pictures.
        image_size: pixels a side.
        sheets: drawing styles to choose from; by default the embedded one.
        lossless: PNG in place of JPEG.

    Returns:
        File name and classes of each picture.

    Raises:
        UserError: if the folder cannot be written.
    """
    generator = SceneGenerator(sheets or [embedded_sprite_sheet()], image_size=image_size, seed=seed)
    truth = []
    for index, scene in enumerate(generator.scenes(count)):
        name = f"scene-{index:05d}.{'png' if lossless else 'jpg'}"
        buffer = io.BytesIO()
        if lossless:
            scene.image.save(buffer, format="PNG", compress_level=1)
        else:
            scene.image.save(buffer, format="JPEG", quality=90)
        _write_if_new(folder / name, buffer.getvalue())
        truth.append((name, frozenset(scene.class_names)))
    lines = (json.dumps({"file_name": name, "labels": sorted(labels)}) + "\n" for name, labels in truth)
    _write_if_new(folder / TRUTH_NAME, "".join(lines).encode())
    return truth


def _write_if_new(path: Path, data: bytes) -> None:
    """Leave a file as it is that is already right: to a store a rewritten picture is a changed one."""
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
