"""One commit group: read column by column as it is asked for, and checked and turned into columns before it is written.

Shape legend: N items, T fine rows of all items together, D embedding size, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from tai_engine.features import FeatureBatch, quantise_rows
from tai_engine.store.layout.arrays import StoreArrays
from tai_engine.store.layout.commits import CommitRecord, read_record
from tai_engine.store.layout.labels import pack_labels, unpack_labels
from tai_engine.store.layout.spec import (
    HASH_BYTES,
    STATUS_DELETED,
    STATUS_DONE,
    STATUS_FAILED,
    STATUS_NAMES,
    StoredItem,
    StoreSpec,
)
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.damage import DamagedGroupError

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
            raise self.damaged(what)
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

    def sizes_N(self) -> np.ndarray:
        """[slots] int64: bytes of the input of every slot, `UNKNOWN` where they are not known."""
        return self._read("size")

    def modified_N(self) -> np.ndarray:
        """[slots] int64: when the input of every slot was last changed, `UNKNOWN` where that is not known."""
        return self._read("modified_ns")

    def hashes_N(self) -> np.ndarray:
        """[slots, 16] uint8: hashes of the inputs, zeros where they are not known; in a store with hashes."""
        return self._read("content_hash")

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
        columns = [column.tolist() for column in (self.ids_N, self.status_N, self.sizes_N(), self.modified_N())]
        nothing = [None] * self.items
        texts = self.texts_N().tolist() if self._spec.has_text else nothing
        labels = [tuple(row.nonzero()[0].tolist()) for row in self.labels_NC()] if self._spec.labels else nothing
        hashes = map(bytes, self.hashes_N()) if self._spec.has_content_hash else nothing
        failed = read_record(self._files, self._spec, self.number).failed
        items = []
        for slot, (name, status, size, modified_ns, text, classes, content_hash) in enumerate(
            zip(*columns, texts, labels, hashes, strict=True)
        ):
            if status >= len(STATUS_NAMES):
                raise self.damaged(f"slot {slot} has the unknown status {status}")
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

    def damaged(self, what: str) -> DamagedGroupError:
        """The error for what was found in this group."""
        return DamagedGroupError(self._files, self.number, what)

    def _read(self, name: str) -> np.ndarray:
        """One entry per slot in use."""
        return self._arrays.read(name, self.first_slot, self.first_slot + self.items)


def check_group(spec: StoreSpec, items: Sequence[StoredItem], batches: Sequence[FeatureBatch]) -> None:
    """Refuse items and features that do not fit each other or the store.

    Raises:
        ValueError: saying what does not fit.
    """
    if not 0 < len(items) <= spec.group_items:
        raise ValueError(f"a group has 1 to {spec.group_items} items, not {len(items)}")
    if len({item.id for item in items}) != len(items):
        raise ValueError("ids are not unique within the group")
    if any(item.status not in ("done", "failed") for item in items):
        raise ValueError("items of a new group are done or failed")
    for name, wanted in (("text", spec.has_text), ("labels", spec.labels is not None)):
        if any((getattr(item, name) is not None) != wanted for item in items):
            raise ValueError(f"every item needs {name} in this store" if wanted else f"this store keeps no {name}")
    if any(item.content_hash is not None and len(item.content_hash) != HASH_BYTES for item in items):
        raise ValueError(f"a content_hash has {HASH_BYTES} bytes")
    if [item.id for item in items if item.status == "done"] != [name for batch in batches for name in batch.ids]:
        raise ValueError("the features are not those of the done items, in their order")
    for batch in batches:
        if batch.space_key != spec.space_key:
            raise ValueError(f"features are of {batch.space_key!r}, the store of {spec.space_key!r}")
        if batch.dim != spec.dim or (batch.coarse_clip is not None) != spec.has_coarse_clip:
            raise ValueError(
                f"features have dim {batch.dim} and coarse_clip {batch.coarse_clip is not None}, "
                f"the store {spec.dim} and {spec.has_coarse_clip}"
            )
        if len(batch) and int(batch.counts.max()) > spec.rows_per_item_max:
            raise ValueError(
                f"an item has {int(batch.counts.max())} fine rows, the store allows {spec.rows_per_item_max}"
            )


def group_columns(
    spec: StoreSpec, items: Sequence[StoredItem], batches: Sequence[FeatureBatch]
) -> dict[str, np.ndarray]:
    """Every array with one entry per slot, that is all but those of fine rows.

    Raises:
        ValueError: for labels outside the classes.
    """
    done = [slot for slot, item in enumerate(items) if item.status == "done"]
    counts_N = np.zeros(len(items), dtype=np.int32)
    counts_N[done] = [count for batch in batches for count in batch.counts.tolist()]
    status_N = np.full(len(items), STATUS_FAILED, dtype=np.uint8)
    status_N[done] = STATUS_DONE

    def in_slots(pieces: Sequence[torch.Tensor]) -> np.ndarray:
        """[N, D]: the rows of the done slots, zeros in the others."""
        slots_ND = np.zeros((len(items), spec.dim), dtype=spec.coarse_dtype)
        if done:
            slots_ND[done] = np.concatenate([_as_stored(piece, spec.coarse_dtype) for piece in pieces])
        return slots_ND

    columns = {
        "id": _strings([item.id for item in items]),
        "status": status_N,
        "count": counts_N,
        "size": np.array([UNKNOWN if item.size is None else item.size for item in items], np.int64),
        "modified_ns": np.array(
            [UNKNOWN if item.modified_ns is None else item.modified_ns for item in items], np.int64
        ),
        "coarse": in_slots([batch.coarse for batch in batches]),
    }
    if spec.has_coarse_clip:
        columns["coarse_clip"] = in_slots([batch.coarse_clip for batch in batches if batch.coarse_clip is not None])
    if spec.has_text:
        columns["text"] = _strings([item.text or "" for item in items])
    if spec.has_content_hash:
        unknown = bytes(HASH_BYTES)
        hashes = b"".join(item.content_hash or unknown for item in items)
        columns["content_hash"] = np.frombuffer(hashes, np.uint8).reshape(len(items), HASH_BYTES)
    if spec.labels is not None:
        columns["labels"] = pack_labels([item.labels or () for item in items], len(spec.labels.class_names))
    return columns


def fine_columns(spec: StoreSpec, batch: FeatureBatch) -> dict[str, np.ndarray]:
    """``fine`` in the type that the store keeps, and ``fine_scale`` where it keeps one; an entry per row.

    Rows that come as int8 are kept as they are in a store of such rows.
    """
    if not spec.is_quantised:
        return {"fine": _as_stored(batch.dequantised().fine, spec.row_dtype)}
    fine_TD, scales_T = (batch.fine, batch.fine_scales) if batch.fine_scales is not None else quantise_rows(batch.fine)
    return {"fine": _as_stored(fine_TD, "int8"), "fine_scale": _as_stored(scales_T, "float32")}


def _as_stored(rows: torch.Tensor, dtype: str) -> np.ndarray:
    converted: np.ndarray = rows.detach().to("cpu", getattr(torch, dtype)).numpy()
    return converted


def _strings(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=np.dtypes.StringDType())
