"""A file of tags as scores per picture and class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from tai_engine.errors import UserError
from tai_engine.regular_files import printable
from tai_engine.tables import short_repr
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.tagging.score_batch import ScoreBatch
from tai_engine.tagging.tag_rows import (
    damage_as_user_error,
    iter_tag_rows,
    read_class_names,
    read_provenance,
    read_untagged,
    require_scored,
)

MAX_SCORES = 2**31
"""Pictures times classes that are held at once: 8 GiB."""


@dataclass(frozen=True, eq=False)
class TagFile:
    """A file of tags as scores.

    Attributes:
        scores: one row per picture that was scored: those with tags in the order of the file, then those without; a
            class that was not written for a picture has the score minus infinity.
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

    A file of an earlier version does not list the pictures without a tag; where it says that more were scored than have
    tags, it is refused.

    Memory: 12 bytes per tag, then the scores, 4 bytes per picture and class and at most `MAX_SCORES` of them.

    Raises:
        UserError: if the file is missing, damaged or none of ours; for a tag that is no class or occurs twice for a
            picture; if it does not say which pictures were scored, or holds what people decided.
    """
    path = Path(path)
    provenance = read_provenance(path)
    require_scored(path)
    class_names = read_class_names(path, provenance)
    untagged = read_untagged(path)
    order: dict[str, int] = {}
    tags = _Tags(class_names)
    with damage_as_user_error(path):
        for batch in iter_tag_rows(path, TAG_SCHEMA.names[:3]):
            tags.add(batch, order)
        if overlap := next((name for name in untagged if name in order), None):
            raise ValueError(f"{short_repr(overlap)} has tags, and is listed as without")
        ids = (*order, *untagged)
        if len(set(untagged)) != len(untagged):
            raise ValueError("an item without a tag is listed twice")
        if (said := int(provenance.get("items", len(ids)))) != len(ids):
            raise UserError(
                f"The file of tags '{printable(path)}' says that {said:,} pictures were scored but names {len(ids):,}, "
                "so nothing that is counted with it would be right: make it again with `tai tag`."
            )
        scores = torch.from_numpy(tags.scores(len(ids)))
    return TagFile(ScoreBatch(ids, class_names, scores), provenance)


class _Tags:
    """Tags as they come by, each as a place in the matrix of scores and a score."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self._class_names = pa.array(class_names, pa.string())
        self._places: list[NDArray[np.int64]] = []
        self._scores: list[NDArray[np.float32]] = []

    def add(self, batch: pa.RecordBatch, order: dict[str, int]) -> None:
        """Take the rows of one batch; ``order`` numbers the ids as they come by.

        Raises:
            ValueError: for a tag that is no class.
        """
        classes = pc.index_in(batch.column("tag"), value_set=self._class_names)
        if classes.null_count:
            strange = batch.column("tag").filter(pc.is_null(classes))[0].as_py()
            raise ValueError(f"the tag {short_repr(strange)} is none of its own classes")
        coded = batch.column("id").dictionary_encode()
        numbers = [order.setdefault(value, len(order)) for value in coded.dictionary.to_pylist()]
        rows = np.asarray(numbers, dtype=np.int64)[coded.indices.to_numpy(zero_copy_only=False)]
        self._places.append(rows * len(self._class_names) + classes.to_numpy(zero_copy_only=False))
        self._scores.append(batch.column("score").to_numpy(zero_copy_only=False))

    def scores(self, items: int) -> NDArray[np.float32]:
        """[N, C] scores, minus infinity where there is no tag.

        Raises:
            UserError: if there are too many.
            ValueError: if a tag occurs twice.
        """
        size = items * len(self._class_names)
        if size > MAX_SCORES:
            raise UserError(
                f"{items:,} pictures with {len(self._class_names):,} classes have {size:,} scores; tai-engine reads at "
                f"most {MAX_SCORES:,} at once."
            )
        result = np.full(size, -np.inf, dtype=np.float32)
        for places, scores in zip(self._places, self._scores, strict=True):
            result[places] = scores
        if int(np.isfinite(result).sum()) != sum(map(len, self._scores)):
            raise ValueError("a tag occurs twice for a picture")
        return result.reshape(items, len(self._class_names))
