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


def conform(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches with exactly the columns, order and types of `TAG_SCHEMA`; other columns are left out.

    Raises:
        ValueError: for a missing column, or values that do not fit the type.
    """
    for batch in batches:
        missing = [name for name in TAG_SCHEMA.names if name not in batch.schema.names]
        if missing:
            raise ValueError(f"the tag table lacks {', '.join(missing)}; it has {', '.join(batch.schema.names)}")
        conformed = batch.select(TAG_SCHEMA.names).cast(TAG_SCHEMA)
        conformed.validate()
        yield conformed
