"""A file of tags as scores per picture and class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tai_engine.features import ScoreBatch
from tai_engine.tagging.exporters.table import TAG_SCHEMA
from tai_engine.tagging.tag_rows import damage_as_user_error, iter_tag_rows, read_provenance


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
    with damage_as_user_error(path):
        provenance = read_provenance(path)
        class_names: list[str] = json.loads(provenance["class_names"])
        column = {name: index for index, name in enumerate(class_names)}
        ids: dict[str, int] = {}
        rows: list[np.ndarray] = []
        for batch in iter_tag_rows(path, TAG_SCHEMA.names[:3]):
            for name, tag, score in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
                if name not in ids:
                    ids[name] = len(rows)
                    rows.append(np.full(len(class_names), -np.inf, dtype=np.float32))
                rows[ids[name]][column[tag]] = score
    scores = np.stack(rows) if rows else np.zeros((0, len(class_names)), dtype=np.float32)
    return TagFile(ScoreBatch(tuple(ids), tuple(class_names), torch.from_numpy(scores)), provenance)
