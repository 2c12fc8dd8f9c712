"""CSV: a row per picture and tag, or a row per picture with a column per tag; UTF-8, RFC 4180."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from tai_engine.files import atomic_text
from tai_engine.tagging.exporters.item_tags import DEFAULT_OPTIONS, ExportOptions, Tag, class_names_of, items_of
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA, conform


def export_long(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],  # noqa: ARG001 - the signature of every format
    options: ExportOptions = DEFAULT_OPTIONS,  # noqa: ARG001
) -> int:
    """Write the columns of the tag table, without provenance, for which CSV has no place.

    Memory: one batch.

    Raises:
        UserError: when the file cannot be written; an older one stays as it was.
    """
    rows = 0
    with atomic_text(path) as file:
        writer = csv.writer(file)
        for number, batch in enumerate(_or_empty(conform(batches))):
            if number == 0:
                writer.writerow(batch.schema.names)
            writer.writerows(zip(*map(_cells, batch.columns), strict=True))
            rows += batch.num_rows
    return rows


def export_wide(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write ``id`` and a column per tag: the probability where tags are calibrated, else the score; 1 where a person
    gave the tag, empty where it was not written.

    Memory: one batch and a row.

    Raises:
        UserError: as `export_long`.
    """
    names = class_names_of(provenance)
    rows = 0
    with atomic_text(path) as file:
        writer = csv.writer(file)
        writer.writerow(["id", *names])
        for item in items_of(batches, options.untagged):
            given = {tag.name: _cell_of(tag) for tag in item.tags}
            writer.writerow([item.id, *(given.get(name, "") for name in names)])
            rows += len(item.tags)
    return rows


def _or_empty(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches, or one without rows where there is none."""
    yield next(batches, pa.RecordBatch.from_pylist([], schema=TAG_SCHEMA))
    yield from batches


def _cell_of(tag: Tag) -> object:
    """The probability, else the score, else 1 for a tag that a person gave."""
    return next((value for value in (tag.probability, tag.score) if value is not None), 1)


def _cells(column: pa.Array) -> list[object]:
    if pa.types.is_floating(column.type):
        return ["" if value is None else value for value in column.cast(pa.string()).to_pylist()]
    return list(column.to_pylist())
