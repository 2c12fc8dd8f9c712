"""Rows of a Parquet file.

Memory: one batch of rows.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tai_engine.errors import UserError
from tai_engine.tables.text_files import open_bytes

_BATCH_ROWS = 4096


def parquet_columns(path: Path, what: str) -> tuple[str, ...]:
    """The columns that hold more than structs and bytes.

    Raises:
        UserError: for a file that is no whole Parquet file.
    """
    with _opened(path, what) as file:
        return tuple(f.name for f in file.schema_arrow if not _holds_structs_or_bytes(f.type))


def packed_columns(path: Path, what: str) -> tuple[str, ...]:
    """The other columns, which hold structs or bytes and are not read.

    Raises:
        UserError: for a file that is no whole Parquet file.
    """
    with _opened(path, what) as file:
        return tuple(f.name for f in file.schema_arrow if _holds_structs_or_bytes(f.type))


def parquet_rows(path: Path, columns: Collection[str], what: str) -> Iterator[dict[str, Any]]:
    """The values of every row that are not null, in the wanted columns that there are.

    Raises:
        UserError: for a file that is no whole Parquet file.
    """
    there = parquet_columns(path, what)
    plain = [column for column in there if column in columns]
    if twice := next((column for column in plain if plain.count(column) > 1), None):
        raise UserError(f"The {what} has the column {twice!r} twice: rename one of the two.")
    with _opened(path, what) as file:
        if not plain:  # it still has rows, and whoever reads them says what is missing
            yield from ({} for _ in range(file.metadata.num_rows))
            return
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=plain):
            for row in batch.to_pylist():
                yield {key: value for key, value in row.items() if value is not None}


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_bytes(path, what) as file:
            if isinstance(file, gzip.GzipFile):
                raise UserError(
                    f"The {what} is a gzipped Parquet file, which cannot be read in parts: gunzip it first."
                )
        with pq.ParquetFile(path) as table:
            yield table
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(f"The {what} is no Parquet file or is damaged ({reason}): make it anew.") from error


def _holds_structs_or_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_structs_or_bytes(kind.value_type)
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
