"""The tag table: one row per item and tag, the only thing that exporters see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

TAG_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("probability", pa.float32()),
        pa.field("threshold", pa.float32()),
    ]
)
"""Columns of the tag table.

``id`` and ``tag`` name the item and the class; ``score`` is what scoring gave; ``probability`` is null until scores are
calibrated; ``threshold`` is what the score had to reach, null where there was none.
"""


DECIDED_SCHEMA = pa.schema(
    [
        *(field.with_nullable(True) if field.name == "score" else field for field in TAG_SCHEMA),
        pa.field("decision", pa.string()),
    ]
)
"""Columns of a table of tags with decisions.

Those of `TAG_SCHEMA`, and ``decision``: ``accept`` for a suggestion that a person confirmed, ``add`` for a person's own
tag, null where nobody decided. What a person added has no score.
"""


def schema_of(batch: pa.RecordBatch) -> pa.Schema:
    """`DECIDED_SCHEMA` for a batch with decisions, else `TAG_SCHEMA`."""
    return DECIDED_SCHEMA if "decision" in batch.schema.names else TAG_SCHEMA


def conform(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches with exactly the columns, order and types of `TAG_SCHEMA` or, where there are decisions, of
    `DECIDED_SCHEMA`; other columns are left out.

    Raises:
        ValueError: for a missing column, or values that do not fit the type.
    """
    for batch in batches:
        schema = schema_of(batch)
        missing = [name for name in schema.names if name not in batch.schema.names]
        if missing:
            raise ValueError(f"the tag table lacks {', '.join(missing)}; it has {', '.join(batch.schema.names)}")
        conformed = batch.select(schema.names).cast(schema)
        conformed.validate()
        yield conformed
