"""One committed group, read column by column as it is asked for.

Shape legend: N items, T fine rows of all items together, D embedding size, C classes.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.store.arrays import StoreArrays
from tai_engine.store.commits import CommitRecord, damaged_group, read_record
from tai_engine.store.labels import unpack_labels
from tai_engine.store.spec import STATUS_DONE, STATUS_NAMES, StoredItem, StoreSpec

UNKNOWN = -1  # size and modified_ns of an input that has none


class StoredGroup:
    """One committed group; every read raises UserError where a chunk is missing or damaged, naming it.

    Memory: for each slot its id and 13 bytes once they have been looked at, and what a call returns.

    Attributes:
        number: of the group.
        items: slots in use, done and failed ones.
        first_slot: position of the first of them in the store.
    """

    def __init__(self, path: Path, spec: StoreSpec, arrays: StoreArrays, record: CommitRecord) -> None:
        self._path = path
        self._spec = spec
        self._arrays = arrays
        self._record = record
        self.number = record.group
        self.items = record.items
        self.first_slot = record.group * spec.group_items

    @cached_property
    def done_N(self) -> np.ndarray:
        """[slots] bool: which slots hold features."""
        done: np.ndarray = self._read("status") == STATUS_DONE
        return done

    @cached_property
    def counts_N(self) -> np.ndarray:
        """[slots] int32: fine rows of each slot."""
        counts_N = self._read("count")
        total = counts_N.sum(dtype=np.int64)
        if (counts_N < 0).any() or total != self._record.rows:
            what = f"its counts add up to {total}, its record says {self._record.rows}"
            raise damaged_group(self._path, self.number, what)
        return counts_N

    @cached_property
    def first_rows(self) -> np.ndarray:
        """[slots + 1] int64: where the fine rows of each slot begin in the array, and where the last ones end."""
        rows: np.ndarray = self._record.first_row + np.concatenate([[0], self.counts_N.cumsum(dtype=np.int64)])
        return rows

    @cached_property
    def ids_N(self) -> np.ndarray:
        """[slots] strings: the id of every slot."""
        return self._read("id")

    def texts_N(self) -> np.ndarray:
        """[slots] strings: the text of every slot, in a store with texts."""
        return self._read("text")

    def labels_NC(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """[slots, C] bool: the labels of slots ``start:stop``, in a store with labels."""
        assert self._spec.labels is not None
        packed = self._read("labels")[start:stop]
        return unpack_labels(packed, len(self._spec.labels.class_names))

    def stored_items(self) -> list[StoredItem]:
        """What became of the input of every slot."""
        columns = [self._read(name).tolist() for name in ("id", "status", "size", "modified_ns")]
        nothing = [None] * self.items
        texts = self.texts_N().tolist() if self._spec.has_text else nothing
        labels = [tuple(row.nonzero()[0].tolist()) for row in self.labels_NC()] if self._spec.labels else nothing
        failed = read_record(self._path, self.number).failed
        items = []
        for slot, (name, status, size, modified_ns, text, classes) in enumerate(
            zip(*columns, texts, labels, strict=True)
        ):
            if status >= len(STATUS_NAMES):
                raise damaged_group(self._path, self.number, f"slot {slot} has the unknown status {status}")
            items.append(
                StoredItem(
                    id=name,
                    status=STATUS_NAMES[status],
                    reason=failed.get(slot),
                    size=None if size == UNKNOWN else size,
                    modified_ns=None if modified_ns == UNKNOWN else modified_ns,
                    text=text,
                    labels=classes,
                )
            )
        return items

    def batch(self, start: int, stop: int, with_fine: bool) -> FeatureBatch:
        """The done items among slots ``start:stop``, rows as they are stored."""
        done, counts = self.done_N[start:stop], self.counts_N[start:stop]
        coarse_ND = self._done_rows("coarse", start, done)
        clip_ND = self._done_rows("coarse_clip", start, done) if self._spec.has_coarse_clip else None
        if with_fine:
            rows_TD = self._arrays.read("fine", int(self.first_rows[start]), int(self.first_rows[stop]))
            fine_TD = torch.from_numpy(rows_TD if done.all() else rows_TD[np.repeat(done, counts)])
        else:
            fine_TD, counts = coarse_ND[:0], np.zeros_like(counts)
        try:
            return FeatureBatch(
                ids=tuple(self.ids_N[start:stop][done].tolist()),
                coarse=coarse_ND,
                fine=fine_TD,
                offsets=offsets_from_counts(torch.from_numpy(counts[done])),
                space_key=self._spec.space_key,
                coarse_clip=clip_ND,
                check_fine=False,
            )
        except ValueError as error:
            raise damaged_group(self._path, self.number, str(error)) from error

    def _read(self, name: str) -> np.ndarray:
        """One entry per slot in use."""
        return self._arrays.read(name, self.first_slot, self.first_slot + self.items)

    def _done_rows(self, name: str, start: int, done: np.ndarray) -> Tensor:
        first = self.first_slot + start
        rows = self._arrays.read(name, first, first + len(done))
        return torch.from_numpy(rows if done.all() else rows[done])
