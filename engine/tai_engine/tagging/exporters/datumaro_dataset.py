"""Datumaro: ``annotations/default.json`` with a label annotation per tag; pictures are named, not copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from tai_engine.tagging.exporters.folders import whole_folder
from tai_engine.tagging.exporters.item_tags import (
    DEFAULT_OPTIONS,
    ExportOptions,
    ImageSizes,
    ItemTags,
    class_names_of,
    items_of,
)
from tai_engine.tagging.exporters.json_pieces import JsonPieces, json_text
from tai_engine.tagging.exporters.stems import Stems


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write a folder; a tag's score and probability are attributes of its annotation.

    Memory: one batch, and the names of all pictures without their endings.

    Raises:
        UserError: when the folder exists or cannot be written, or two pictures differ only in the ending: Datumaro
            names pictures without it.
    """
    number_of = {name: number for number, name in enumerate(class_names_of(provenance))}
    sizes, stems, rows = ImageSizes(options.images), Stems("Datumaro"), 0
    labels = [{"name": name, "parent": "", "attributes": []} for name in number_of]
    categories = {"label": {"labels": labels, "label_groups": [], "attributes": []}}
    with whole_folder(path) as folder:
        (folder / "annotations").mkdir()
        with (folder / "annotations" / "default.json").open("w", encoding="utf-8", newline="\n") as file:
            file.write(f'{{"dm_format_version": "1.0", "media_type": 2, "infos": {json_text(dict(provenance))},\n')
            file.write(f'"categories": {json_text(categories)},\n"items": [')
            pieces = JsonPieces(file)
            for item in items_of(batches, options.untagged):
                pieces.write(json_text(_item(item, stems.of(item.id), number_of, sizes, rows)))
                rows += len(item.tags)
            file.write("\n]}\n")
    return rows


def _item(
    item: ItemTags, stem: str, number_of: Mapping[str, int], sizes: ImageSizes, annotations_before: int
) -> dict[str, Any]:
    annotations = [
        {
            "id": number,
            "type": "label",
            "attributes": tag.numbers,
            "group": 0,
            "label_id": number_of[tag.name],
        }
        for number, tag in enumerate(item.tags, annotations_before)
    ]
    image: dict[str, Any] = {"path": str(PurePosixPath(item.id))}
    if size := sizes.of(item.id):
        image["size"] = [size[1], size[0]]  # Datumaro's order is height, width
    return {"id": stem, "annotations": annotations, "image": image}
