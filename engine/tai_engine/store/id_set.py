"""A set of very many ids in little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


class IdSet:
    """Ids by a 128-bit hash of their UTF-8 bytes: about 16 bytes each (up to 40 while one is being merged).

    Two different ids collide with a chance of n² / 2^129 among n ids: 10^-21 for a billion.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        # The halves of the hashes, in order of the high one.
        self._high = np.zeros(0, dtype=np.uint64)
        self._low = np.zeros(0, dtype=np.uint64)
        self._recent: set[bytes] = set()
        for item in ids:
            self.add(item)

    def add(self, item: str) -> bool:
        """Put an id in; True if it was not there yet."""
        key = _hash(item)
        if self._has(key):
            return False
        self._recent.add(key)
        # Merging when the recent ones are an eighth of all keeps both the memory and the work per id bounded.
        if len(self._recent) >= max(4096, len(self._high) // 8):
            self._merge()
        return True

    def __contains__(self, item: str) -> bool:
        return self._has(_hash(item))

    def __len__(self) -> int:
        return len(self._high) + len(self._recent)

    def _has(self, key: bytes) -> bool:
        if key in self._recent:
            return True
        high, low = np.frombuffer(key, dtype=np.uint64)
        position = int(np.searchsorted(self._high, high))
        while position < len(self._high) and self._high[position] == high:
            if self._low[position] == low:
                return True
            position += 1
        return False

    def _merge(self) -> None:
        recent = np.frombuffer(b"".join(self._recent), dtype=np.uint64).reshape(-1, 2)
        high = np.concatenate([self._high, recent[:, 0]])
        low = np.concatenate([self._low, recent[:, 1]])
        order = np.argsort(high, kind="stable")  # stable: the longer run is already in order
        self._high, self._low, self._recent = high[order], low[order], set()


def _hash(item: str) -> bytes:
    return hashlib.blake2b(item.encode("utf-8"), digest_size=16).digest()
