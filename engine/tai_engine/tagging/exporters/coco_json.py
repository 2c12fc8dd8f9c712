"""COCO-like JSON. COCO itself knows no tags of whole pictures: annotations here have neither box nor segmentation.

``images`` have ``id`` (from 1) and ``file_name``, with ``width`` and ``height`` where the pictures are at hand;
``annotations`` have ``id``, ``image_id``, ``category_id``, ``iscrowd`` 0, ``score`` and, where tags are calibrated,
``probability``; ``categories`` are numbered from 1 in the order of the vocabulary. pycocotools reads it. CVAT drops
such annotations when it imports COCO: give it its own format or Datumaro's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from tai_engine.files import atomic_text
from tai_engine.tagging.exporters.item_tags import (
    DEFAULT_OPTIONS,
    ExportOptions,
    ImageSizes,
    class_names_of,
    items_of,
)
from tai_engine.tagging.exporters.json_pieces import JsonPieces, json_text


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write one JSON file; see the module.

    Memory: one batch. Annotations wait in a temporary file until all images are written.

    Raises:
        UserError: when the file cannot be written; an older one stays as it was.
    """
    number_of = {name: number for number, name in enumerate(class_names_of(provenance), 1)}
    sizes = ImageSizes(options.images)
    rows = 0
    with (
        atomic_text(path) as file,
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=Path(file.name).parent) as waiting,
    ):
        info = {"description": "Tags of whole pictures", "tai_engine": dict(provenance)}
        file.write(f'{{"info": {json_text(info)}, "licenses": [],\n"images": [')
        images, annotations = JsonPieces(file), JsonPieces(waiting)
        for image, item in enumerate(items_of(batches, options.untagged), 1):
            size = sizes.of(item.id)
            shape = {"width": size[0], "height": size[1]} if size else {}
            images.write(json_text({"id": image, "file_name": item.id, **shape}))
            for tag in item.tags:
                rows += 1
                annotation: dict[str, float] = {
                    "id": rows,
                    "image_id": image,
                    "category_id": number_of[tag.name],
                    "iscrowd": 0,
                }
                annotations.write(json_text(annotation | tag.numbers))
        file.write('\n],\n"annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file)
        categories = [{"id": number, "name": name} for name, number in number_of.items()]
        file.write(f'\n],\n"categories": {json_text(categories)}}}\n')
    return rows
