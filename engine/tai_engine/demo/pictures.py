"""Pictures to try the engine on: scenes drawn into a folder, with a file of truth beside them."""

from __future__ import annotations

import json
from pathlib import Path

from tai_engine.atomic import atomic_path, write_atomically
from tai_engine.demo.scenes import SceneGenerator
from tai_engine.demo.sprites import embedded_sprite_sheet

TRUTH_NAME = "truth.jsonl"


def draw_pictures(folder: Path, count: int, seed: int = 0, image_size: int = 256) -> list[tuple[str, frozenset[str]]]:
    """Draw ``count`` scenes of the embedded drawings as JPEG files into ``folder``, and what is in each into a list.

    The list is ``truth.jsonl`` with ``{"file_name", "labels"}`` a line, as `tai evaluate` reads it. The same seed gives
    the same pictures.

    Returns:
        File name and classes of each picture.

    Raises:
        UserError: if the folder cannot be written.
    """
    generator = SceneGenerator([embedded_sprite_sheet()], image_size=image_size, seed=seed)
    truth = []
    for index, scene in enumerate(generator.scenes(count)):
        name = f"scene-{index:05d}.jpg"
        with atomic_path(folder / name) as temporary:
            scene.image.save(temporary, format="JPEG", quality=90)
        truth.append((name, frozenset(scene.class_names)))
    lines = (json.dumps({"file_name": name, "labels": sorted(labels)}) + "\n" for name, labels in truth)
    write_atomically(folder / TRUTH_NAME, "".join(lines))
    return truth
