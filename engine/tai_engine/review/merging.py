"""Tags that the machine gave and what a person decided, in one table: nothing that a person said is lost in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tai_engine.review.decisions import UNDECIDED, PictureDecision
from tai_engine.tagging.exporters.tag_table import DECIDED_SCHEMA, TAG_SCHEMA


def merge(batches: Iterable[pa.RecordBatch], decisions: Mapping[str, PictureDecision]) -> Iterator[pa.RecordBatch]:
    """The tags that hold, as batches of `DECIDED_SCHEMA`.

    Rejected tags are left out; accepted ones stay, below their threshold or not; others stay if they reach theirs. Tags
    of a person that are not among the rows of their picture come behind these rows, and those of pictures without any
    row at the end.

    Memory: a batch, the rows of one decided picture, and the ids of decided pictures.

    Args:
        batches: of a table of tags, the rows of a picture in one piece.
        decisions: what was decided, by picture.
    """
    decided = pa.array(list(decisions), pa.string())
    remaining = dict.fromkeys(decisions)
    current: str | None = None
    seen: set[str] = set()

    def rest_of(item_id: str | None) -> Iterator[pa.RecordBatch]:
        """The person's tags that no row had."""
        if item_id is not None:
            yield from _own_rows(item_id, decisions[item_id], seen)

    for batch in batches:
        is_decided = pc.is_in(batch.column("id"), value_set=decided).to_numpy(zero_copy_only=False)
        for start, stop in _runs(batch.column("id"), is_decided):
            rows = batch.slice(start, stop - start)
            item_id = rows.column("id")[0].as_py() if is_decided[start] else None
            if item_id != current:
                yield from rest_of(current)
                current, seen = item_id, set()
            if item_id is None:
                yield from _kept(rows, UNDECIDED)
            else:
                remaining.pop(item_id, None)
                seen.update(rows.column("tag").to_pylist())
                yield from _kept(rows, decisions[item_id])
    yield from rest_of(current)
    for item_id in remaining:
        yield from _own_rows(item_id, decisions[item_id], set())


def _runs(ids: pa.Array, flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and stop of the rows of each decided picture, and of all rows between two such."""
    if not len(flags):
        return
    is_start = np.ones(len(flags), bool)
    is_start[1:] = flags[1:] != flags[:-1]
    both = np.flatnonzero(flags[1:] & flags[:-1]) + 1
    if len(both):
        same = pc.equal(ids.take(pa.array(both)), ids.take(pa.array(both - 1))).to_numpy(zero_copy_only=False)
        is_start[both] = ~same
    starts = np.flatnonzero(is_start)
    yield from zip(starts.tolist(), [*starts[1:].tolist(), len(flags)], strict=True)


def _kept(rows: pa.RecordBatch, decision: PictureDecision) -> Iterator[pa.RecordBatch]:
    reaches = pc.fill_null(pc.greater_equal(rows.column("score"), rows.column("threshold")), True)
    if decision:
        tags = rows.column("tag").to_pylist()
        holds = [m if (v := decision.verdict(t)) is None else v for t, m in zip(tags, reaches.to_pylist(), strict=True)]
        keep, said = pa.array(holds, pa.bool_()), pa.array(map(decision.verdicts.get, tags), pa.string())
    else:
        keep, said = reaches, pa.nulls(len(rows), pa.string())
    columns = [*(rows.column(name) for name in TAG_SCHEMA.names), said]
    kept = pa.RecordBatch.from_arrays(columns, schema=DECIDED_SCHEMA).filter(keep)
    if len(kept):
        yield kept


def _own_rows(item_id: str, decision: PictureDecision, seen: set[str]) -> Iterator[pa.RecordBatch]:
    tags = [tag for tag in decision.present if tag not in seen]
    if tags:
        rows = {"id": [item_id] * len(tags), "tag": tags, "decision": [decision.verdicts[tag] for tag in tags]}
        nothing = {name: pa.nulls(len(tags), pa.float32()) for name in ("score", "probability", "threshold")}
        yield pa.RecordBatch.from_pydict(rows | nothing, schema=DECIDED_SCHEMA)
