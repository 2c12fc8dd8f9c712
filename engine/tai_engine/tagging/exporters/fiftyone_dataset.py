"""FiftyOne: ``labels.json`` of a ``FiftyOneImageClassificationDataset`` with several labels a picture.

Read it with ``fo.Dataset.from_dir(dataset_type=fo.types.FiftyOneImageClassificationDataset, labels_path=...,
data_path=<the folder of pictures>)``: pictures are named, not copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tai_engine.files import atomic_text
from tai_engine.tagging.exporters.item_tags import (
    DEFAULT_OPTIONS,
    ExportOptions,
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
    """Write ``labels.json``: labels by name, with the probability as confidence where tags are calibrated and the score
    as an attribute.

    Memory: one batch, and the names of all pictures without their endings.

    Raises:
        UserError: when the file cannot be written, or two pictures differ only in the ending: FiftyOne names pictures
            without it.
    """
    stems, rows = Stems("FiftyOne"), 0
    with atomic_text(path) as file:
        file.write(f'{{"classes": {json_text(class_names_of(provenance))},\n"labels": {{')
        pieces = JsonPieces(file)
        for item in items_of(batches, options.untagged):
            pieces.write(f"{json_text(stems.of(item.id))}: {json_text(_labels(item))}")
            rows += len(item.tags)
        file.write("\n}}\n")
    return rows


def _labels(item: ItemTags) -> list[dict[str, Any]]:
    return [
        {"label": tag.name}
        | ({} if tag.probability is None else {"confidence": tag.probability})
        | ({} if tag.score is None else {"attributes": {"score": tag.score}})
        for tag in item.tags
    ]
