"""Hugging Face's ImageFolder: ``metadata.jsonl`` with ``file_name`` and lists of tags, scores and probabilities.

It has to lie in the folder of the pictures (or above it), under exactly this name:
``load_dataset("imagefolder", data_dir=<the folder>)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from tai_engine.errors import UserError
from tai_engine.files import atomic_text
from tai_engine.tagging.exporters.item_tags import DEFAULT_OPTIONS, ExportOptions, items_of
from tai_engine.tagging.exporters.json_pieces import json_text

FILE_NAME = "metadata.jsonl"


def place(path: Path) -> Path:
    """The file that is written where a user says ``path``: itself, or the one in the folder of that name.

    Raises:
        UserError: for another file name.
    """
    path = path / FILE_NAME if path.is_dir() or path.suffix != ".jsonl" else path
    if path.name != FILE_NAME:
        raise UserError(
            f"Hugging Face's ImageFolder reads {FILE_NAME} only, not '{path.name}': "
            "give --out the folder of the pictures."
        )
    return path


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],  # noqa: ARG001 - every key of a line would be taken for a column
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write one line a picture.

    Memory: one batch.

    Raises:
        UserError: when the file cannot be written; an older one stays as it was.
    """
    rows = 0
    with atomic_text(path) as file:
        for item in items_of(batches, options.untagged):
            line = {
                "file_name": options.image_prefix + item.id,
                "tags": [tag.name for tag in item.tags],
                "scores": [tag.score for tag in item.tags],
                "probabilities": [tag.probability for tag in item.tags if tag.probability is not None],
            }
            file.write(json_text(line) + "\n")
            rows += len(item.tags)
    return rows
