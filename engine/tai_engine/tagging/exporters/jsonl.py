"""JSON Lines: one object per item and tag; where the tags come from stands in a second file beside it.

Provenance is not a first line of the file itself, since readers of JSON Lines (pandas, DuckDB, Hugging Face datasets)
would take it for a row. The second file is named ``<file>.provenance.json`` and holds one object: ``file``, ``rows``
and ``bytes`` of the file that it belongs to, ``tai_engine``, the provenance, and ``untagged``, the ids of items that
were scored and have no tag, if there are any.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from tai_engine.files import atomic_text
from tai_engine.tagging.exporters.item_tags import DEFAULT_OPTIONS, ExportOptions, shortest
from tai_engine.tagging.exporters.json_pieces import json_text
from tai_engine.tagging.exporters.tag_table import conform

SLICE_ROWS = 16_384


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write a tag table as JSON Lines in UTF-8: ``{"id", "tag", "score", "probability", "threshold"}``.

    Numbers are the shortest decimals that round to the same fp32 value. Memory: one batch and the text of
    `SLICE_ROWS` rows.

    Args:
        batches: pieces of the table, in order.
        path: the final name.
        provenance: goes into the second file (see the module), which is written after the first.
        options: pictures without a tag, which are listed there.

    Returns:
        The number of rows.

    Raises:
        UserError: when a file cannot be written; an older one stays as it was.
        ValueError: for batches that are not a tag table, or numbers that JSON does not know (infinite, NaN).
    """
    path = Path(path)
    rows = 0
    with atomic_text(path) as file:
        for batch in conform(batches):
            for start in range(0, batch.num_rows, SLICE_ROWS):
                file.writelines(_lines(batch.slice(start, SLICE_ROWS)))
            rows += batch.num_rows
    record = {"file": path.name, "rows": rows, "bytes": path.stat().st_size, "tai_engine": dict(provenance)}
    beside = provenance_path(path)
    with atomic_text(beside) as file:
        text = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True)
        file.write(text.removesuffix("\n}"))
        opening, closing = ',\n  "untagged": [\n    ', "\n}\n"
        for item_id in options.untagged:  # one at a time: there may be millions
            file.write(opening + json_text(item_id))
            opening, closing = ",\n    ", "\n  ]\n}\n"
        file.write(closing)
    return rows


def provenance_path(path: Path) -> Path:
    """The second file beside a file of JSON Lines."""
    return path.with_name(path.name + ".provenance.json")


def _lines(batch: pa.RecordBatch) -> Iterator[str]:
    names = batch.schema.names
    columns = [
        _shortest(column) if pa.types.is_floating(column.type) else column.to_pylist() for column in batch.columns
    ]
    for values in zip(*columns, strict=True):
        yield json_text(dict(zip(names, values, strict=True))) + "\n"


def _shortest(column: pa.Array) -> list[float | None]:
    return [None if value is None else shortest(value) for value in column.to_pylist()]
