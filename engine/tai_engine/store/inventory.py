"""What is in a store, by id, in little memory: for skipping what is done and finding what has changed.

Shape legend: N items.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tai_engine.store.group_reading import UNKNOWN
from tai_engine.store.spec import HASH_BYTES, STATUS_DELETED, STATUS_NAMES

if TYPE_CHECKING:
    from tai_engine.store.reading import StoreReader


@dataclass(frozen=True)
class InventoryItem:
    """What a store knows of an input.

    Attributes:
        row: its number in the inventory.
        position: in the store, group x ``spec.group_items`` + slot.
        status: ``"done"`` or ``"failed"``.
        size, modified_ns: of the input when it was read, None if not known.
        content_hash: of its bytes, None if not known, or not kept in this inventory.
    """

    row: int
    position: int
    status: str
    size: int | None
    modified_ns: int | None
    content_hash: bytes | None


class Inventory:
    """All items of a store but deleted ones, as they were when this was made.

    Memory: 48 bytes an item (64 with hashes), whatever its id; half as much again while it is made.
    Ids count by a hash of 128 bits: two of n are taken for one with a chance of n² / 2^129, 10^-21 for a billion.

    Attributes:
        superseded: positions of items whose id occurs again further back, which counts. They are there if a run was
            killed between the commit of an item's new features and the deletion of its old ones.
    """

    def __init__(self, store: StoreReader, *, with_hashes: bool = False) -> None:
        """Read the ids, states, sizes and times of all groups, and the hashes if wanted and kept.

        Raises:
            UserError: for a damaged group.
        """
        with_hashes = with_hashes and store.spec.has_content_hash
        length = len(store)
        keys_N = np.empty((length, 2), np.uint64)
        self._positions = np.empty(length, np.int64)
        self._status = np.empty(length, np.uint8)
        self._sizes = np.empty(length, np.int64)
        self._modified = np.empty(length, np.int64)
        self._hashes = np.empty((length, HASH_BYTES), np.uint8) if with_hashes else None
        start = 0
        for number in store.groups():
            group = store._group(number)
            slots = (group.status_N != STATUS_DELETED).nonzero()[0]
            stop = start + len(slots)
            keys_N[start:stop] = _keys(group.ids_N[slots].tolist())
            self._positions[start:stop] = group.first_slot + slots
            self._status[start:stop] = group.status_N[slots]
            self._sizes[start:stop] = group._read("size")[slots]
            self._modified[start:stop] = group._read("modified_ns")[slots]
            if self._hashes is not None:
                self._hashes[start:stop] = group._read("content_hash")[slots]
            start = stop
        # Of equal ids the last position comes last: lexsort is stable, and positions rise.
        order = np.lexsort((keys_N[:, 1], keys_N[:, 0]))
        self._high, self._low = (np.ascontiguousarray(keys_N[order, half]) for half in (0, 1))
        del keys_N
        for name in ("_positions", "_status", "_sizes", "_modified", "_hashes"):
            column = getattr(self, name)
            if column is not None:
                setattr(self, name, column[order])
        is_old = np.zeros(length, np.bool_)
        if length:
            is_old[:-1] = (self._high[1:] == self._high[:-1]) & (self._low[1:] == self._low[:-1])
        self.superseded = np.sort(self._positions[is_old])
        self._is_seen = is_old  # what is superseded is not missed

    def __len__(self) -> int:
        """Items, each id once."""
        return len(self._positions) - len(self.superseded)

    def find(self, name: str) -> InventoryItem | None:
        """What is known of an id, None if it is not in the store."""
        high, low = _keys([name])[0]
        row = int(np.searchsorted(self._high, high))
        found = -1
        while row < len(self._high) and self._high[row] == high:
            if self._low[row] == low:
                found = row  # the last one counts
            row += 1
        if found < 0:
            return None
        size, modified_ns = int(self._sizes[found]), int(self._modified[found])
        digest = b"" if self._hashes is None else self._hashes[found].tobytes()
        return InventoryItem(
            row=found,
            position=int(self._positions[found]),
            status=STATUS_NAMES[self._status[found]],
            size=None if size == UNKNOWN else size,
            modified_ns=None if modified_ns == UNKNOWN else modified_ns,
            content_hash=digest if any(digest) else None,
        )

    def see(self, item: InventoryItem) -> bool:
        """Note that an input of this id has come; False if one has come before."""
        is_first = not self._is_seen[item.row]
        self._is_seen[item.row] = True
        return is_first

    def unseen(self) -> np.ndarray:
        """[n] int64, rising: positions of the items for which no input has come."""
        return np.sort(self._positions[~self._is_seen])


def _keys(names: list[str]) -> np.ndarray:
    """[N, 2] uint64: a hash of each id."""
    digests = b"".join(hashlib.blake2b(name.encode("utf-8"), digest_size=16).digest() for name in names)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)
