"""The rows of a file of tags, where they come from, and which pictures have none; it needs no deep learning library.

A file of tags has a row per picture and tag. Which pictures were scored is more than that: those that got no tag (with
`--threshold`) are listed apart, see `tai_engine.tagging.exporters.untagged_items`. What others may have written is
checked here, for all who read such files: columns, types, and scores that are numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tai_engine.errors import ItemError, UserError, reason_of
from tai_engine.regular_files import open_regular, printable
from tai_engine.tables import Table, TableOptions, parse_json, read_small, short_repr
from tai_engine.tagging.exporters.jsonl import provenance_path, require_pair
from tai_engine.tagging.exporters.parquet import METADATA_PREFIX
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.tagging.exporters.untagged_items import METADATA_KEY, read_listing

BATCH_ROWS = 65_536
_MAX_PROVENANCE_BYTES = 2**30


def read_provenance(path: Path) -> dict[str, str]:
    """What `tai tag` wrote beside the tags of a file.

    Raises:
        UserError: if the file is missing, damaged or none of ours.
    """
    with damage_as_user_error(path):
        if _is_parquet(path):
            pairs = _parquet_metadata(path)
            found = {k.removeprefix(METADATA_PREFIX): v for k, v in pairs.items() if k.startswith(METADATA_PREFIX)}
            found.pop(METADATA_KEY.removeprefix(METADATA_PREFIX), None)
            return found
        record = _read_beside(path)
        require_pair(path, record)
        beside = record.get("tai_engine")
        if not isinstance(beside, dict) or not all(isinstance(value, str) for value in beside.values()):
            raise ValueError(f"'{provenance_path(path).name}' has no provenance in it")
        return dict(beside)


def read_class_names(path: Path, provenance: dict[str, str]) -> tuple[str, ...]:
    """The classes that the tags of a file are of.

    Raises:
        UserError: if the provenance does not say, or nonsense.
    """
    with damage_as_user_error(path):
        if "class_names" not in provenance:
            raise ValueError("it does not say which classes it has")
        names = parse_json(provenance["class_names"])
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"its classes are {short_repr(names)}, not a list of names")
        if len(set(names)) != len(names):
            raise ValueError("one of its classes occurs twice")
        return tuple(names)


def read_untagged(path: Path) -> tuple[str, ...]:
    """The ids of the pictures that were scored and have no tag.

    Memory: the ids.

    Raises:
        UserError: if the file is missing, damaged or none of ours.
    """
    with damage_as_user_error(path):
        if _is_parquet(path):
            place = _parquet_metadata(path).get(METADATA_KEY)
            if place is None:
                return ()
            with open_regular(path) as file:
                return tuple(read_listing(file, place))
        untagged = _read_beside(path).get("untagged", [])
        if not isinstance(untagged, list) or not all(isinstance(item, str) for item in untagged):
            raise ValueError(f"in '{provenance_path(path).name}' the items without a tag are no list of ids")
        return tuple(untagged)


def require_scored(path: Path) -> None:
    """Refuse tags that were exported with people's decisions: what they rejected is missing, what they added unscored.

    Raises:
        UserError: for such a file.
    """
    with damage_as_user_error(path):
        if _is_parquet(path):
            names = pq.read_schema(path).names
        else:
            table = Table(path, TAG_SCHEMA.names, TableOptions("jsonl"), kind="file of tags")
            names = next((list(values) for _, values in table.rows((*TAG_SCHEMA.names, "decision"))), [])
    if "decision" in names:
        raise UserError(
            f"The file of tags '{printable(path)}' holds what people decided, and not every score: evaluate the file "
            "that `tai tag` wrote; this one can be its --truth."
        )


def iter_tag_rows(path: Path, columns: Sequence[str] = tuple(TAG_SCHEMA.names)) -> Iterator[pa.RecordBatch]:
    """The rows of a file of tags, in its order; memory: a batch of `BATCH_ROWS` rows.

    Args:
        path: of the Parquet or JSONL file.
        columns: of `TAG_SCHEMA`, in this order.

    Raises:
        UserError: if the file is missing, damaged or none of ours: a column that is missing, a value that is missing or
            of another type, a score that is no finite number.
    """
    schema = pa.schema([TAG_SCHEMA.field(name) for name in columns])
    with damage_as_user_error(path):
        batches = _parquet_batches if _is_parquet(path) else _jsonl_batches
        for batch in batches(path, schema):
            _check(batch)
            yield batch


@contextlib.contextmanager
def damage_as_user_error(path: Path) -> Iterator[None]:
    """Whatever the body finds wrong with the file is said in one sentence.

    Raises:
        UserError: if the file is missing, damaged or none of ours.
    """
    what = f"file of tags '{printable(path)}'"
    if not path.is_file():
        raise UserError(f"There is no file of tags at '{printable(path)}': check the path.")
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, ItemError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else reason_of(error)
        raise UserError(f"The {what} is not a whole file of tags ({reason}): make it again with `tai tag`.") from error


def _is_parquet(path: Path) -> bool:
    with open_regular(path) as file:
        return file.peek(4)[:4] == b"PAR1"


def _parquet_metadata(path: Path) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (pq.read_metadata(path).metadata or {}).items()}


def _read_beside(path: Path) -> dict[str, Any]:
    beside = provenance_path(path)
    if not beside.is_file():
        raise UserError(
            f"'{printable(path)}' is not a whole file of tags: it is no Parquet, and '{beside.name}', which `tai tag` "
            "writes beside JSON Lines, is missing; keep the two together."
        )
    record = parse_json(read_small(beside, f"file '{printable(beside)}'", _MAX_PROVENANCE_BYTES))
    if not isinstance(record, dict):
        raise ValueError(f"'{beside.name}' has no provenance in it")
    return record


def _parquet_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        _check_columns(file.schema_arrow.names, schema)
        for batch in file.iter_batches(columns=schema.names):
            # Nulls are looked for afterwards, where they can be told by name.
            yield batch.select(schema.names).cast(pa.schema([field.with_nullable(True) for field in schema]))


def _jsonl_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    block: list[dict[str, Any]] = []
    table = Table(path, schema.names, TableOptions("jsonl"), kind="file of tags")
    for place, values in table.rows(schema.names):
        _check_columns(values, pa.schema([field for field in schema if not field.nullable]), f"{place}: ")
        for field in schema:
            value = values.get(field.name)
            is_text = pa.types.is_string(field.type)
            is_right = isinstance(value, str) if is_text else isinstance(value, int | float) and value is not True
            if value is not None and (not is_right or value is False):
                kind = "text" if is_text else "number"
                raise ValueError(f"{place}: the {field.name} is {short_repr(value)}, which is no {kind}")
        block.append(values)
        if len(block) == BATCH_ROWS:
            yield pa.RecordBatch.from_pylist(block, schema)
            block = []
    if block:
        yield pa.RecordBatch.from_pylist(block, schema)


def _check_columns(names: Iterable[str], schema: pa.Schema, where: str = "") -> None:
    there = list(names)
    if missing := [field.name for field in schema if field.name not in there]:
        only = ", ".join(map(repr, there[:12]))
        raise ValueError(f"{where}it has no {' and no '.join(map(repr, missing))}, only {only}")


def _check(batch: pa.RecordBatch) -> None:
    for name in batch.schema.names:
        if batch.column(name).null_count and not TAG_SCHEMA.field(name).nullable:
            if name == "score":
                raise ValueError("it holds tags without a score, as people add them in a review")
            raise ValueError(f"a row without {name!r}")
    if "score" in batch.schema.names:
        scores = batch.column("score").to_numpy(zero_copy_only=False)
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            names = [name for name in ("tag", "id") if name in batch.schema.names]
            where = " of ".join(short_repr(batch.column(name)[row].as_py()) for name in names)
            raise ValueError(f"the score of {where or 'a tag'} is {scores[row]}, which is no number")
