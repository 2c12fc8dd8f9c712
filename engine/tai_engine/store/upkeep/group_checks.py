"""What can be wrong with one committed group.

Shape legend: N items (slots), T fine rows, D embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tai_engine.features import LENGTH_TOLERANCE
from tai_engine.store.layout.array_layout import ROW_ARRAYS
from tai_engine.store.layout.arrays import StoreArrays
from tai_engine.store.layout.commits import CommitRecord, record_name
from tai_engine.store.layout.labels import content_of, contents_digest, unpack_labels
from tai_engine.store.layout.spec import STATUS_DONE, STATUS_FAILED, StoreSpec
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.damage import DamagedGroupError

_LENGTH_TOLERANCE = {"float16": LENGTH_TOLERANCE[torch.float16], "float32": LENGTH_TOLERANCE[torch.float32]}
_VECTORS = ("coarse", "coarse_clip", "fine", "fine_scale")


@dataclass(frozen=True)
class StoreProblem:
    """Something in a store that is not as it should be.

    Attributes:
        kind: what, in one or two words.
        file: its name below the store.
        detail: what was found.
        group: the group that suffers, None where it is not one group.
        slots: the items of the group that are meant, where it is not all of them.
        mended: what `--repair` did about it; None if nothing was done.
    """

    kind: str
    file: str
    detail: str
    group: int | None = None
    slots: tuple[int, ...] = ()
    mended: str | None = None


class GroupChecker:
    """Checks the groups of one store, one at a time; memory: the columns of a group and one chunk."""

    def __init__(self, files: StoreFiles, spec: StoreSpec, arrays: StoreArrays) -> None:
        """Args: the parts of the store."""
        self._files = files
        self._spec = spec
        self._arrays = arrays
        self._chunks = arrays.chunk_files

    def short_arrays(self, records: Iterable[CommitRecord]) -> dict[str, int]:
        """Arrays that are too short for what records without problems say: the lengths that they need."""
        needed = dict.fromkeys(self._chunks.arrays, 0)
        for record in records:
            for array in needed:
                needed[array] = max(needed[array], self._stop(array, record))
        return {array: length for array, length in needed.items() if length > self._arrays.length(array)}

    def check(self, record: CommitRecord, deep: bool) -> tuple[list[StoreProblem], list[tuple[int, str]]]:
        """Everything that is wrong with what a group holds, as far as it can be told, and the ids of its live items.

        Args:
            record: with its reasons, and without problems of its own.
            deep: whether the vectors are read; else their chunks are only measured.

        Returns:
            the problems, and slot and id of each item that is not deleted (none if there are problems).

        Raises:
            OSError: if the place cannot be looked at.
        """
        if any(self._stop(array, record) > self._arrays.length(array) for array in self._chunks.arrays):
            return [], []  # see `short_arrays`
        found = list(self._chunk_problems(record))
        columns: dict[str, np.ndarray] = {}
        if not found:
            for array in self._chunks.arrays:
                if array not in _VECTORS:
                    try:
                        columns[array] = self._read(record, array, 0, record.items)
                    except DamagedGroupError as error:
                        found.append(_damaged(record, self._chunks.of_group(array, record)[0], error))
            if not found:
                found += self._column_problems(record, columns)
            if deep:
                # Lengths are compared where it is certain which items have vectors.
                found += self._vector_problems(record, None if found else columns["status"])
        if found:
            return found, []
        deleted = set(record.deleted)
        return [], [(slot, name) for slot, name in enumerate(columns["id"].tolist()) if slot not in deleted]

    def _chunk_problems(self, record: CommitRecord) -> Iterator[StoreProblem]:
        total, is_whole = 0, True
        for array in self._chunks.arrays:
            wanted = self._chunks.bytes(array)
            for name in self._chunks.of_group(array, record):
                try:
                    size = self._files.size(name)
                except FileNotFoundError:
                    yield StoreProblem("missing chunk", name, "there is no such file", record.group)
                    is_whole = False
                    continue
                total += size
                if wanted is not None and size != wanted:
                    kind = "truncated chunk" if size < wanted else "damaged chunk"
                    yield StoreProblem(kind, name, f"{size} bytes, not {wanted}", record.group)
                    is_whole = False
        if is_whole and total != record.bytes:
            yield _wrong_counts(record, f"its chunks have {total} bytes, its record says {record.bytes}")

    def _column_problems(self, record: CommitRecord, columns: dict[str, np.ndarray]) -> Iterator[StoreProblem]:
        status_N, counts_N = columns["status"], columns["count"]
        failed = (status_N == STATUS_FAILED).nonzero()[0].tolist()
        done, rows = int((status_N == STATUS_DONE).sum()), int(counts_N.sum(dtype=np.int64))
        most = self._spec.rows_per_item_max
        if done != record.done:
            yield _wrong_counts(record, f"{done} items are done, its record says {record.done}")
        if failed != sorted(record.failed):
            yield _wrong_counts(record, f"{len(failed)} items failed, its record names {len(record.failed)} others")
        if rows != record.rows:
            yield _wrong_counts(record, f"its counts add up to {rows}, its record says {record.rows}")
        if ((counts_N < 0) | (counts_N > most)).any():
            yield _wrong_counts(record, f"an item has less than 0 or more than {most} fine rows")
        if counts_N[status_N != STATUS_DONE].any():
            yield _wrong_counts(record, "an item that failed has fine rows")
        if not all(columns["id"].tolist()):
            file = self._chunks.of_group("id", record)[0]
            yield StoreProblem("invalid id", file, "an item has an id without letters", record.group)
        if self._spec.has_text and self._digest(record, columns) != record.digest:
            detail = "the ids, texts and labels are not those that its record has the digest of"
            yield StoreProblem("wrong digest", record_name(record.group), detail, record.group)

    def _digest(self, record: CommitRecord, columns: dict[str, np.ndarray]) -> str:
        deleted = set(record.deleted)
        labels: list[list[int] | None] = [None] * record.items
        if self._spec.labels is not None:
            labels_NC = unpack_labels(columns["labels"], len(self._spec.labels.class_names))
            labels = [row.nonzero()[0].tolist() for row in labels_NC]
        items = zip(columns["id"].tolist(), columns["text"].tolist(), labels, strict=True)
        return contents_digest(content_of(*item) for slot, item in enumerate(items) if slot not in deleted)

    def _vector_problems(self, record: CommitRecord, status_N: np.ndarray | None) -> Iterator[StoreProblem]:
        for array in (array for array in self._chunks.arrays if array in _VECTORS):
            entries, length = self._chunks.entries(array, record), self._chunks.length(array)
            for start, file in zip(range(0, entries, length), self._chunks.of_group(array, record), strict=True):
                stop = min(start + length, entries)
                try:
                    rows = self._read(record, array, start, stop)
                except DamagedGroupError as error:
                    yield _damaged(record, file, error)
                    continue
                if array in ROW_ARRAYS:
                    wanted = np.ones(stop - start)
                elif status_N is not None:
                    wanted = (status_N[start:stop] == STATUS_DONE).astype(np.float64)
                else:
                    continue
                scales = None
                if rows.dtype == np.int8:
                    try:
                        scales = self._read(record, "fine_scale", start, stop)
                    except DamagedGroupError:
                        continue  # that chunk has its own turn
                detail = None if array == "fine_scale" else _wrong_length(rows, scales, wanted)
                if detail is not None:
                    yield StoreProblem("wrong length", file, detail, record.group)

    def _stop(self, array: str, record: CommitRecord) -> int:
        entries = self._chunks.entries(array, record)
        return record.group * self._chunks.group_length(array) + entries if entries else 0

    def _read(self, record: CommitRecord, array: str, start: int, stop: int) -> np.ndarray:
        first = record.group * self._chunks.group_length(array)
        return self._arrays.read(array, first + start, first + stop)


def _wrong_counts(record: CommitRecord, detail: str) -> StoreProblem:
    return StoreProblem("wrong counts", record_name(record.group), detail, record.group)


def _damaged(record: CommitRecord, file: str, error: DamagedGroupError) -> StoreProblem:
    return StoreProblem("damaged chunk", file, error.what.removeprefix(f"the chunk {file} "), record.group)


def _wrong_length(rows: np.ndarray, scales: np.ndarray | None, wanted: np.ndarray) -> str | None:
    """The first row whose length is not the wanted one within what its type rounds, in words; None if all are right."""
    if scales is None:
        tolerance = np.full(len(rows), _LENGTH_TOLERANCE[rows.dtype.name])
    else:
        # Rounding moves each of D numbers by half a step at most, and so the length by half a step times the root of D.
        tolerance = _LENGTH_TOLERANCE["float16"] + np.abs(scales.astype(np.float64)) / 2 * math.sqrt(rows.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(rows.astype(np.float32), axis=1).astype(np.float64)
        if scales is not None:
            lengths *= scales
        wrong = ~(np.abs(lengths - wanted) <= tolerance)  # a NaN compares false, so it is caught as well
    if not wrong.any():
        return None
    first = int(wrong.nonzero()[0][0])
    return f"row {first} of the chunk has length {lengths[first]:.6g}, not {wanted[first]:.0f}"
