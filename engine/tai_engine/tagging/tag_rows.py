"""The rows of a file of tags, and where they come from; it needs no deep learning library."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tai_engine.errors import UserError
from tai_engine.tagging.exporters.parquet import METADATA_PREFIX
from tai_engine.tagging.exporters.table import TAG_SCHEMA

BATCH_ROWS = 65_536


def read_provenance(path: Path) -> dict[str, str]:
    """What `tai tag` wrote beside the tags of a file.

    Raises:
        UserError: if the file is missing, damaged or none of ours.
    """
    with damage_as_user_error(path):
        if path.suffix == ".parquet":
            metadata = pq.read_schema(path).metadata or {}
            pairs = ((key.decode(), value.decode()) for key, value in metadata.items())
            return {k.removeprefix(METADATA_PREFIX): v for k, v in pairs if k.startswith(METADATA_PREFIX)}
        beside = path.with_name(path.name + ".provenance.json")
        return dict(json.loads(beside.read_text(encoding="utf-8"))["tai_engine"])


def iter_tag_rows(path: Path, columns: Sequence[str] = tuple(TAG_SCHEMA.names)) -> Iterator[pa.RecordBatch]:
    """The rows of a file of tags, in its order; memory: a batch of `BATCH_ROWS` rows.

    Args:
        path: of the Parquet or JSONL file.
        columns: of `TAG_SCHEMA`, in this order.

    Raises:
        UserError: if the file is missing, damaged or none of ours.
    """
    schema = pa.schema([TAG_SCHEMA.field(name) for name in columns])
    with damage_as_user_error(path):
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(columns=list(columns)):
                yield batch.select(list(columns)).cast(schema)
            return
        block: list[dict[str, object]] = []
        with path.open(encoding="utf-8") as file:
            for line in file:
                block.append(json.loads(line))
                if len(block) == BATCH_ROWS:
                    yield pa.RecordBatch.from_pylist(block, schema)
                    block = []
        if block:
            yield pa.RecordBatch.from_pylist(block, schema)


@contextlib.contextmanager
def damage_as_user_error(path: Path) -> Iterator[None]:
    """Whatever the body finds wrong with the file is said in one sentence.

    Raises:
        UserError: if the file is missing, damaged or none of ours.
    """
    if not path.is_file():
        raise UserError(f"There is no file of tags at '{path}': check the path.")
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is not a whole file of tags ({type(error).__name__}: {error}): make it again with `tai tag`."
        ) from error
