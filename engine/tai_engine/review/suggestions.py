"""What the machine suggests, as columns of numbers: the best rows of a file of tags.

Shape legend: N pictures, M suggestions of all pictures together, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tai_engine.errors import UserError
from tai_engine.tagging.tag_rows import iter_tag_rows, read_class_names, read_provenance

MOST = 32
"""So many suggestions of a picture are kept; of files with every class of every picture, `MOST_OF_ALL`."""
MOST_OF_ALL = 8


@dataclass(frozen=True, eq=False)
class Suggestions:
    """The best tags of every picture, best first; picture ``n`` owns ``offsets[n]:offsets[n+1]``.

    Memory: 16 bytes a suggestion, 8 bytes a picture and its id.

    Attributes:
        ids: N texts (an Arrow array), each once, in the order of the file.
        tags: C names.
        offsets: [N + 1] int64.
        classes: [M] int32 into ``tags``.
        scores: [M] fp32.
        probabilities: [M] fp32, NaN where there are none.
        thresholds: [M] fp32 that scores had to reach, NaN where there are none.
        provenance: what `tai tag` wrote beside the tags.
        sha256: of the file.
    """

    ids: pa.LargeStringArray
    tags: tuple[str, ...]
    offsets: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    thresholds: np.ndarray
    provenance: dict[str, str]
    sha256: str

    @property
    def has_probabilities(self) -> bool:
        """Whether every suggestion has a probability, so that these are shown in place of scores."""
        return len(self.scores) > 0 and not bool(np.isnan(self.probabilities).any())

    @property
    def is_weak(self) -> np.ndarray:
        """[M] bool: below its threshold, so that the tag does not hold unless a person says so."""
        return self.scores < self.thresholds  # no threshold is NaN, and nothing is below it

    def doubts(self) -> np.ndarray:
        """[M] fp32 in 0..1: how unsure each suggestion is.

        With a probability p it is 1 - |2p - 1|. With a threshold alone it is 1 / (1 + distance of the score to it).
        With a bare score it is 1 / (1 + distance of the picture's best score to its second), the same for all
        suggestions of a picture, and 0 for a single one: scores of different pictures mean different things.
        """
        counts = np.diff(self.offsets)
        several = counts > 1
        margins = np.full(len(counts), np.inf, np.float32)
        first = self.offsets[:-1][several]
        # The best two scores lie first unless probabilities order them otherwise.
        margins[several] = np.abs(self.scores[first] - self.scores[first + 1])
        doubts = np.repeat(1 / (1 + margins), counts)
        has_threshold = ~np.isnan(self.thresholds)
        doubts[has_threshold] = 1 / (1 + np.abs(self.scores - self.thresholds)[has_threshold])
        has_probability = ~np.isnan(self.probabilities)
        doubts[has_probability] = (1 - np.abs(2 * self.probabilities - 1))[has_probability]
        return doubts.astype(np.float32)


def read_suggestions(path: str | Path, most: int | None = None) -> Suggestions:
    """The best rows of a file of tags that `tai tag` made.

    Rows that reach their threshold come first, then by probability, or by score where there is none.

    Memory: what `Suggestions` says, as much again while they are put in order, and a batch of the file.

    Args:
        path: of the Parquet or JSONL file.
        most: so many of a picture at most; by default `MOST`, or `MOST_OF_ALL` if every class was written.

    Raises:
        UserError: if the file is missing, damaged, none of ours, or holds no tags.
    """
    path = Path(path)
    provenance = read_provenance(path)
    tags = read_class_names(path, provenance)
    if most is None:
        most = MOST_OF_ALL if provenance.get("complete") == "true" else MOST
    parts = [part for batch in iter_tag_rows(path) for part in _best_of(batch, tags, most, path)]
    if not parts:
        raise UserError(f"The file '{path}' holds no tags: make it again with `tai tag` and a lower threshold.")
    ids = pa.chunked_array([part[0] for part in parts]).combine_chunks()
    counts, classes, *numbers = (np.concatenate([part[i] for part in parts]) for i in range(1, 6))
    # A picture may lie in several batches, or its rows in several places.
    encoded = ids.dictionary_encode()
    pictures = np.repeat(encoded.indices.to_numpy(), counts)
    order = _best_first(pictures, *numbers)
    rank = _rank_in_runs(pictures[order])
    order = order[rank < most]
    per_picture = np.bincount(pictures[order], minlength=len(encoded.dictionary))
    scores, probabilities, thresholds = (column[order] for column in numbers)
    return Suggestions(
        ids=encoded.dictionary,
        tags=tags,
        offsets=np.concatenate([[0], np.cumsum(per_picture)]).astype(np.int64),
        classes=classes[order],
        scores=scores,
        probabilities=probabilities,
        thresholds=thresholds,
        provenance=provenance,
        sha256=_sha256(path),
    )


def _best_of(
    batch: pa.RecordBatch, tags: tuple[str, ...], most: int, path: Path
) -> Iterator[tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Ids, counts, classes and numbers of the best rows of each run of one picture."""
    if not batch.num_rows:
        return
    ids = batch.column("id").cast(pa.large_string())
    is_start = np.ones(len(ids), bool)
    is_start[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    runs = np.cumsum(is_start) - 1
    classes = pc.index_in(batch.column("tag"), value_set=pa.array(tags, pa.string()))
    if classes.null_count:
        unknown = batch.column("tag").filter(pc.is_null(classes))[0].as_py()
        raise UserError(
            f"'{path}' has the tag {unknown!r}, which is not in its own vocabulary: make it with `tai tag`."
        )
    scores, probabilities, thresholds = (
        batch.column(name).to_numpy(zero_copy_only=False).astype(np.float32)
        for name in ("score", "probability", "threshold")
    )
    order = _best_first(runs, scores, probabilities, thresholds)
    order = order[_rank_in_runs(runs[order]) < most]
    yield (
        ids.filter(pa.array(is_start)),
        np.bincount(runs[order]),
        classes.to_numpy()[order].astype(np.int32),
        scores[order],
        probabilities[order],
        thresholds[order],
    )


def _best_first(
    pictures: np.ndarray, scores: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """The order by picture, and in it from the best to the worst, equal ones as they were."""
    confidence = np.where(np.isnan(probabilities), scores, probabilities)
    return np.lexsort((-confidence, scores < thresholds, pictures))


def _rank_in_runs(values: np.ndarray) -> np.ndarray:
    """How many equal values stand directly before each."""
    positions = np.arange(len(values))
    is_start = np.ones(len(values), bool)
    is_start[1:] = values[1:] != values[:-1]
    return positions - np.maximum.accumulate(np.where(is_start, positions, 0))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
