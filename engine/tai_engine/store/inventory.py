"""What is in a store, by id, in little memory: for skipping what is done and finding what has changed.

Ids count by a hash of 128 bits of their UTF-8 bytes: two of n are taken for one with a chance of n² / 2^129, 10^-21 for
a billion.

Shape legend: N items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tai_engine.store.group import UNKNOWN, StoredGroup
from tai_engine.store.layout.spec import HASH_BYTES, STATUS_DELETED, STATUS_NAMES


class IdSet:
    """Very many ids: about 16 bytes each (up to 40 while one is being merged)."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._keys = _SortedKeys(np.zeros((0, 2), np.uint64), np.zeros(0, np.int64))
        self._recent: set[bytes] = set()
        for item in ids:
            self.add(item)

    def add(self, item: str) -> bool:
        """Put an id in; True if it was not there yet."""
        key = _key_of(item)
        if self._has(key):
            return False
        self._recent.add(key)
        # Merging when the recent ones are an eighth of all keeps both the memory and the work per id bounded.
        if len(self._recent) >= max(4096, len(self._keys) // 8):
            self._keys = self._keys.merged(_as_pairs(b"".join(self._recent)))
            self._recent = set()
        return True

    def __contains__(self, item: str) -> bool:
        return self._has(_key_of(item))

    def __len__(self) -> int:
        return len(self._keys) + len(self._recent)

    def _has(self, key: bytes) -> bool:
        return key in self._recent or self._keys.find_last(key) is not None


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
    """All items of a store but deleted ones, as they were when this was made (`StoreReader.inventory`).

    Memory: 48 bytes an item (64 with hashes), whatever its id; half as much again while it is made.

    Attributes:
        superseded: positions of items whose id occurs again further back, which counts. They are there if a run was
            killed between the commit of an item's new features and the deletion of its old ones.
    """

    def __init__(self, groups: Iterable[StoredGroup], items: int, *, with_hashes: bool = False) -> None:
        """Read the ids, states, sizes and times, and the hashes if wanted.

        Args:
            groups: all of the store, in order.
            items: how many they hold that are not deleted.
            with_hashes: in a store that has them.

        Raises:
            UserError: for a damaged group.
        """
        keys_N = np.empty((items, 2), np.uint64)
        positions_N, status_N = np.empty(items, np.int64), np.empty(items, np.uint8)
        sizes_N, modified_N = np.empty(items, np.int64), np.empty(items, np.int64)
        hashes_N = np.empty((items, HASH_BYTES), np.uint8) if with_hashes else None
        start = 0
        for group in groups:
            slots = (group.status_N != STATUS_DELETED).nonzero()[0]
            stop = start + len(slots)
            keys_N[start:stop] = _as_pairs(b"".join(map(_key_of, group.ids_N[slots].tolist())))
            positions_N[start:stop] = group.first_slot + slots
            status_N[start:stop] = group.status_N[slots]
            sizes_N[start:stop] = group.sizes_N()[slots]
            modified_N[start:stop] = group.modified_N()[slots]
            if hashes_N is not None:
                hashes_N[start:stop] = group.hashes_N()[slots]
            start = stop
        # Of equal ids the last position comes last: lexsort is stable, and positions rise.
        order = np.lexsort((keys_N[:, 1], keys_N[:, 0]))
        self._keys = _SortedKeys(keys_N, order)
        del keys_N
        self._positions, self._status = positions_N[order], status_N[order]
        self._sizes, self._modified = sizes_N[order], modified_N[order]
        self._hashes = None if hashes_N is None else hashes_N[order]
        is_old = self._keys.comes_again()
        self.superseded = np.sort(self._positions[is_old])
        self._is_seen = is_old  # what is superseded is not missed

    def __len__(self) -> int:
        """Items, each id once."""
        return len(self._positions) - len(self.superseded)

    def find(self, name: str) -> InventoryItem | None:
        """What is known of an id, None if it is not in the store."""
        found = self._keys.find_last(_key_of(name))
        if found is None:
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


class _SortedKeys:
    """Hashes of ids as two columns of 64 bits, in the order of the first one; 16 bytes each."""

    def __init__(self, keys_N: np.ndarray, order: np.ndarray) -> None:
        """Args: [N, 2] uint64, and [N] where each is found that comes next; of equal ones the last given comes last."""
        self._high, self._low = (np.ascontiguousarray(keys_N[order, half]) for half in (0, 1))

    def __len__(self) -> int:
        return len(self._high)

    def find_last(self, key: bytes) -> int | None:
        """Where the last one equal to ``key`` stands, None if there is none."""
        high, low = np.frombuffer(key, np.uint64)
        row, found = int(np.searchsorted(self._high, high)), None
        while row < len(self._high) and self._high[row] == high:
            if self._low[row] == low:
                found = row
            row += 1
        return found

    def comes_again(self) -> np.ndarray:
        """[N] bool: whether an equal one follows; of keys in the order of both columns."""
        again_N = np.zeros(len(self), np.bool_)
        if len(self):
            again_N[:-1] = (self._high[1:] == self._high[:-1]) & (self._low[1:] == self._low[:-1])
        return again_N

    def merged(self, keys_N: np.ndarray) -> _SortedKeys:
        """These and some others, [n, 2] uint64."""
        all_N = np.concatenate([np.stack([self._high, self._low], axis=1), keys_N])
        return _SortedKeys(all_N, np.argsort(all_N[:, 0], kind="stable"))  # the longer run is already in order


def _key_of(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8"), digest_size=16).digest()


def _as_pairs(keys: bytes) -> np.ndarray:
    """[N, 2] uint64 of N keys."""
    return np.frombuffer(keys, np.uint64).reshape(-1, 2)
