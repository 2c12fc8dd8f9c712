"""Parquet: one row per item and tag; where the tags come from stands in the file's key-value metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tai_engine.files import atomic_path
from tai_engine.tagging.exporters.item_tags import DEFAULT_OPTIONS, ExportOptions
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA, conform
from tai_engine.tagging.exporters.untagged_items import METADATA_KEY, write_listing

METADATA_PREFIX = "tai_engine."
ROW_GROUP_ROWS = 131_072


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write a tag table as one zstd-compressed Parquet file, in row groups of `ROW_GROUP_ROWS` rows.

    Memory: one row group and one batch.

    Args:
        batches: pieces of the table, in order.
        path: the final name.
        provenance: each entry becomes the key-value metadata ``tai_engine.<key>``.
        options: pictures without a tag, which are listed where rows are not (see `untagged_items`).

    Returns:
        The number of rows.

    Raises:
        UserError: when the file cannot be written; an older file stays as it was.
        ValueError: for batches that are not a tag table.
    """
    conformed = conform(batches)
    first = list(islice(conformed, 1))
    schema = first[0].schema if first else TAG_SCHEMA
    schema = schema.with_metadata({METADATA_PREFIX + key: value for key, value in provenance.items()})
    rows = 0
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        pa.PythonFile(file, mode="w") as sink,
        pq.ParquetWriter(sink, schema, compression="zstd") as writer,
    ):
        if (untagged := write_listing(sink, options.untagged)) is not None:
            writer.add_key_value_metadata({METADATA_KEY: untagged})
        for block in _row_groups(chain(first, conformed)):
            writer.write_table(block, row_group_size=ROW_GROUP_ROWS)
            rows += block.num_rows
    return rows


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of `ROW_GROUP_ROWS` rows, the last one shorter: a writer makes a row group of every table it is given."""
    held: list[pa.RecordBatch] = []
    held_rows = 0
    for batch in batches:
        held.append(batch)
        held_rows += batch.num_rows
        if held_rows >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(held)
            whole = held_rows - held_rows % ROW_GROUP_ROWS
            yield table.slice(0, whole)
            held = table.slice(whole).to_batches()
            held_rows -= whole
    if held_rows:
        yield pa.Table.from_batches(held)
