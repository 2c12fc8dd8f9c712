"""JSON Lines: one object per item and tag; where the tags come from stands in a second file beside it.

Provenance is not a first line of the file itself, since readers of JSON Lines (pandas, DuckDB, Hugging Face datasets)
would take it for a row. The second file is named ``<file>.provenance.json`` and holds one object: ``file``, ``rows``,
``bytes`` and ``sha256`` of the file that it belongs to, ``tai_engine``, the provenance, and ``untagged``, the ids of
items that were scored and have no tag, if there are any. Of a writer that is killed between the two, new tags stay
beside the older provenance: `require_pair` tells that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tai_engine.errors import UserError
from tai_engine.files import atomic_path, atomic_text
from tai_engine.regular_files import printable
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
    rows = size = 0
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as lines:
        for batch in conform(batches):
            for start in range(0, batch.num_rows, SLICE_ROWS):
                data = "".join(_lines(batch.slice(start, SLICE_ROWS))).encode()
                lines.write(data)
                digest.update(data)
                size += len(data)
            rows += batch.num_rows
    record = {
        "file": path.name,
        "rows": rows,
        "bytes": size,
        "sha256": digest.hexdigest(),
        "tai_engine": dict(provenance),
    }
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


def require_pair(path: Path, record: Mapping[str, Any]) -> None:
    """Make sure that a second file belongs to the first one as it is now; memory: a block of it.

    Args:
        path: of the first.
        record: what the second holds; an older version gave no digest, and then the size alone is compared.

    Raises:
        UserError: if it belongs to another one.
        OSError: if the first cannot be read.
    """
    with path.open("rb") as file:
        said = record.get("sha256")
        is_same = file.seek(0, 2) == record.get("bytes", file.tell())
        file.seek(0)
        if is_same and (said is None or hashlib.file_digest(file, "sha256").hexdigest() == said):
            return
    raise UserError(
        f"'{printable(path)}' and '{provenance_path(path).name}' beside it are not of one run: the run that wrote the "
        "first was stopped before the second, or one of them was changed; write them again with the same command."
    )


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
