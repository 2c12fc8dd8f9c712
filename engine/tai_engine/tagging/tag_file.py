"""Reading a file of tags back: scores per picture and class, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tai_engine.errors import UserError
from tai_engine.features import ScoreBatch
from tai_engine.tagging.exporters.parquet import METADATA_PREFIX
from tai_engine.tagging.exporters.table import TAG_SCHEMA


@dataclass(frozen=True, eq=False)
class TagFile:
    """A file of tags as scores.

    Attributes:
        scores: one row per picture that has at least one tag, in the order of the file; a class that was not written
            for a picture has the score minus infinity.
        provenance: what `tai tag` wrote beside the tags.
    """

    scores: ScoreBatch
    provenance: dict[str, str]

    @property
    def is_complete(self) -> bool:
        """Whether every class was written for every picture."""
        return bool(torch.isfinite(self.scores.scores).all())


def read_tag_file(path: str | Path) -> TagFile:
    """Read the Parquet file or the JSONL file with its provenance beside it that `tai tag` wrote.

    Memory: the scores, 4 bytes per picture and class, and one block of rows.

    Raises:
        UserError: if the file is missing, damaged or none of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file of tags at '{path}': check the path.")
    try:
        provenance = _provenance(path)
        class_names: list[str] = json.loads(provenance["class_names"])
        column = {name: index for index, name in enumerate(class_names)}
        ids: dict[str, int] = {}
        rows: list[np.ndarray] = []
        for batch in _batches(path):
            for name, tag, score in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
                if name not in ids:
                    ids[name] = len(rows)
                    rows.append(np.full(len(class_names), -np.inf, dtype=np.float32))
                rows[ids[name]][column[tag]] = score
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is not a whole file of tags ({type(error).__name__}: {error}): make it again with `tai tag`."
        ) from error
    scores = np.stack(rows) if rows else np.zeros((0, len(class_names)), dtype=np.float32)
    return TagFile(ScoreBatch(tuple(ids), tuple(class_names), torch.from_numpy(scores)), provenance)


def _provenance(path: Path) -> dict[str, str]:
    if path.suffix == ".parquet":
        metadata = pq.read_schema(path).metadata or {}
        pairs = ((key.decode(), value.decode()) for key, value in metadata.items())
        return {k.removeprefix(METADATA_PREFIX): v for k, v in pairs if k.startswith(METADATA_PREFIX)}
    beside = path.with_name(path.name + ".provenance.json")
    return dict(json.loads(beside.read_text(encoding="utf-8"))["tai_engine"])


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    columns = TAG_SCHEMA.names[:3]
    if path.suffix == ".parquet":
        yield from pq.ParquetFile(path).iter_batches(columns=columns)
        return
    block: list[dict[str, object]] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            block.append({name: json.loads(line)[name] for name in columns})
            if len(block) == 65_536:
                yield pa.RecordBatch.from_pylist(block)
                block = []
    if block:
        yield pa.RecordBatch.from_pylist(block)
