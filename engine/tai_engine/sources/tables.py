"""Lists that people keep: JSONL, CSV, TSV and Parquet files, read row by row.

Memory: one line, or one batch of Parquet rows.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tai_engine.errors import UserError

LIST_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_MAX_LINE_BYTES = 16 * 2**20
_PARQUET_ROWS = 1024


class Record(NamedTuple):
    """One row of a list.

    Attributes:
        place: where it stands, for error messages: ``"line 3"`` or ``"row 3"``, counted from 1.
        values: the wanted columns that the row has and that are not null.
    """

    place: str
    values: dict[str, Any]


def is_list(path: str | Path) -> bool:
    """Whether the suffix is that of a list."""
    return Path(path).suffix.lower() in LIST_SUFFIXES


def read_records(path: str | Path, columns: Collection[str], *, name: str | None = None) -> Iterator[Record]:
    """The rows of a list in order; blank lines are skipped.

    CSV and TSV need a header line and give text alone. Of Parquet files, columns of structs and bytes are passed over:
    pictures inside a table are no paths.

    Args:
        path: its suffix says what it is: one of `LIST_SUFFIXES`.
        columns: the names that are wanted; a row need not have them all.
        name: what messages call the list; its path if None.

    Raises:
        UserError: for a file that is missing or cannot be read, another suffix, text that is not UTF-8, or a row that
            is damaged (says which).
    """
    path = Path(path)
    name = str(path) if name is None else name
    suffix = path.suffix.lower()
    if suffix not in LIST_SUFFIXES:
        raise UserError(f"'{name}' is no list that can be read: its name must end in {', '.join(LIST_SUFFIXES)}.")
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path, name, columns)
        elif suffix in (".csv", ".tsv"):
            yield from _read_csv(path, name, columns, "\t" if suffix == ".tsv" else ",")
        else:
            yield from _read_jsonl(path, name, columns)
    except OSError as error:
        raise UserError(f"The list '{name}' cannot be read ({error.strerror or error}): check the path.") from error


def _lines(path: Path, name: str) -> Iterator[str]:
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(_MAX_LINE_BYTES)
            if not line:
                return
            if len(line) == _MAX_LINE_BYTES:
                raise UserError(f"Line {number} of '{name}' is longer than 16 MiB: this is no list of one row a line.")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"Line {number} of '{name}' is not UTF-8: save the list as UTF-8.") from error


def _read_jsonl(path: Path, name: str, columns: Collection[str]) -> Iterator[Record]:
    for number, line in enumerate(_lines(path, name), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"Line {number} of '{name}' is not valid JSON ({error}): mend or remove it.") from error
        if not isinstance(row, dict):
            raise UserError(
                f"Line {number} of '{name}' is not a JSON object such as {{\"path\": ...}}: mend or remove it."
            )
        yield Record(f"line {number}", {key: row[key] for key in columns if row.get(key) is not None})


def _read_csv(path: Path, name: str, columns: Collection[str], delimiter: str) -> Iterator[Record]:
    reader = csv.DictReader(_lines(path, name), delimiter=delimiter, strict=True)
    try:
        header = [column.strip() for column in reader.fieldnames or ()]
        if len(set(header)) != len(header):
            raise UserError(f"The header of '{name}' names a column twice ({', '.join(header)}): rename one.")
        reader.fieldnames = header
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(
                    f"Line {reader.line_num} of '{name}' has not as many columns as the header ({len(header)}): "
                    "put quotation marks around fields that contain the separator."
                )
            yield Record(place, {key: row[key] for key in columns if key in row})
    except csv.Error as error:
        raise UserError(f"Line {reader.reader.line_num} of '{name}' is not valid CSV ({error}): mend it.") from error


def _read_parquet(path: Path, name: str, columns: Collection[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            plain = [f.name for f in file.schema_arrow if f.name in columns and not _holds_more_than_text(f.type)]
            rows = (
                row for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=plain) for row in batch.to_pylist()
            )
            # A file without any of the columns still has rows, and whoever reads them says what is missing.
            empty: Iterator[dict[str, Any]] = ({} for _ in range(file.metadata.num_rows))
            for number, row in enumerate(rows if plain else empty, 1):
                yield Record(f"row {number}", {key: value for key, value in row.items() if value is not None})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"'{name}' is no Parquet file or is damaged ({error}): make it anew.") from error


def _holds_more_than_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_more_than_text(kind.value_type)
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
