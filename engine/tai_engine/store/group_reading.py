"""One committed group, read column by column as it is asked for.

Shape legend: N items, T fine rows of all items together, D embedding size, C classes.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store.arrays import StoreArrays
from tai_engine.store.commits import CommitRecord, damaged_group, read_record
from tai_engine.store.feature_reading import ItemPlaces, read_features
from tai_engine.store.labels import unpack_labels
from tai_engine.store.row_buffers import RowBuffers
from tai_engine.store.spec import STATUS_DELETED, STATUS_DONE, STATUS_NAMES, StoredItem, StoreSpec
from tai_engine.store.store_files import StoreFiles

UNKNOWN = -1  # size and modified_ns of an input that has none


class StoredGroup:
    """One committed group; every read raises UserError where a chunk is missing or damaged, naming it.

    Memory: for each slot its id and 13 bytes once they have been looked at, and what a call returns.

    Attributes:
        number: of the group.
        items: slots in use, done and failed ones.
        first_slot: position of the first of them in the store.
    """

    def __init__(self, files: StoreFiles, spec: StoreSpec, arrays: StoreArrays, record: CommitRecord) -> None:
        self._files = files
        self._spec = spec
        self._arrays = arrays
        self._record = record
        self.number = record.group
        self.items = record.items
        self.first_slot = record.group * spec.group_items

    @cached_property
    def status_N(self) -> np.ndarray:
        """[slots] uint8: what became of every slot, deleted ones included."""
        status_N = self._read("status")
        status_N[list(self._record.deleted)] = STATUS_DELETED
        return status_N

    @cached_property
    def done_N(self) -> np.ndarray:
        """[slots] bool: which slots hold features."""
        done: np.ndarray = self.status_N == STATUS_DONE
        return done

    @cached_property
    def counts_N(self) -> np.ndarray:
        """[slots] int32: fine rows of each slot."""
        counts_N = self._read("count")
        total = counts_N.sum(dtype=np.int64)
        if (counts_N < 0).any() or total != self._record.rows:
            what = f"its counts add up to {total}, its record says {self._record.rows}"
            raise damaged_group(self._files, self.number, what)
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

    def live_ids(self) -> list[str]:
        """Ids of the items that were not deleted, in slot order."""
        ids: list[str] = self.ids_N[self.status_N != STATUS_DELETED].tolist()
        return ids

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
        columns = [column.tolist() for column in (self.ids_N, self.status_N, *map(self._read, ("size", "modified_ns")))]
        nothing = [None] * self.items
        texts = self.texts_N().tolist() if self._spec.has_text else nothing
        labels = [tuple(row.nonzero()[0].tolist()) for row in self.labels_NC()] if self._spec.labels else nothing
        hashes = map(bytes, self._read("content_hash")) if self._spec.has_content_hash else nothing
        failed = read_record(self._files, self.number).failed
        items = []
        for slot, (name, status, size, modified_ns, text, classes, content_hash) in enumerate(
            zip(*columns, texts, labels, hashes, strict=True)
        ):
            if status >= len(STATUS_NAMES):
                raise damaged_group(self._files, self.number, f"slot {slot} has the unknown status {status}")
            items.append(
                StoredItem(
                    id=name,
                    status=STATUS_NAMES[status],
                    reason=None if status == STATUS_DELETED else failed.get(slot),
                    size=None if size == UNKNOWN else size,
                    modified_ns=None if modified_ns == UNKNOWN else modified_ns,
                    text=text,
                    labels=classes,
                    content_hash=content_hash if content_hash and any(content_hash) else None,
                )
            )
        return items

    def batch(
        self, start: int, stop: int, with_fine: bool, pin_memory: bool = False, buffers: RowBuffers | None = None
    ) -> FeatureBatch:
        """The done items among slots ``start:stop``, rows as they are stored."""
        slots_N = self.done_N[start:stop].nonzero()[0] + start
        places = ItemPlaces(
            ids=tuple(self.ids_N[slots_N].tolist()),
            positions=slots_N + self.first_slot,
            counts=self.counts_N[slots_N].astype(np.int64) if with_fine else None,
            first_rows=self.first_rows[slots_N] if with_fine else None,
        )
        try:
            return read_features(self._spec, self._arrays, places, pin_memory, buffers)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise damaged_group(self._files, self.number, str(error)) from error

    def _read(self, name: str) -> np.ndarray:
        """One entry per slot in use."""
        return self._arrays.read(name, self.first_slot, self.first_slot + self.items)
