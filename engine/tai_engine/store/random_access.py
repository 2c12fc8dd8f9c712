"""A few items from anywhere in a store, in any order, without reading the items around them.

Shape legend: N items.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch

from tai_engine.features import FeatureBatch
from tai_engine.store.arrays import StoreArrays
from tai_engine.store.feature_reading import ItemPlaces, read_features
from tai_engine.store.group_reading import StoredGroup
from tai_engine.store.row_buffers import RowBuffers
from tai_engine.store.spec import StoreSpec

Positions: TypeAlias = Sequence[int] | torch.Tensor | np.ndarray

_GROUPS_HELD = 1024


class ItemReader:
    """Random access to the items of one store.

    Memory: what a call returns, and for the last 1,024 groups that were touched an id and 21 bytes per slot (40 MB in
    all with groups of 1,024 and short ids).
    """

    def __init__(
        self, spec: StoreSpec, arrays: StoreArrays, group: Callable[[int], StoredGroup], buffers: RowBuffers
    ) -> None:
        """Args: the parts of the store, what opens a committed group of it, and where memory comes from."""
        self._spec = spec
        self._arrays = arrays
        self._buffers = buffers
        self._group = functools.lru_cache(maxsize=_GROUPS_HELD)(group)

    def read_items(self, positions: Positions, with_fine: bool, pin_memory: bool = False) -> FeatureBatch:
        """See `FeatureStore.read_items`."""
        positions_N = np.asarray(positions, dtype=np.int64)
        n = len(positions_N)
        if len(np.unique(positions_N)) != n:
            raise ValueError("a position is asked for twice, but a batch holds an item once")
        with_fine = with_fine and self._spec.has_fine
        ids_N = np.empty(n, dtype=object)
        counts_N, first_rows_N = np.zeros(n, np.int64), np.zeros(n, np.int64)
        for group, places, slots in self._by_group(positions_N):
            ids_N[places] = group.ids_N[slots].astype(object)
            if with_fine:
                counts_N[places] = group.counts_N[slots]
                first_rows_N[places] = group.first_rows[slots]
        where = ItemPlaces(tuple(ids_N), positions_N, *((counts_N, first_rows_N) if with_fine else ()))
        return read_features(self._spec, self._arrays, where, pin_memory, self._buffers)

    def read_texts(self, positions: Positions) -> list[str]:
        """See `FeatureStore.read_texts`."""
        positions_N = np.asarray(positions, dtype=np.int64)
        texts_N = np.empty(len(positions_N), dtype=object)
        for group, places, slots in self._by_group(positions_N):
            texts_N[places] = group.texts_N()[slots].astype(object)
        return list(texts_N)

    def _by_group(self, positions_N: np.ndarray) -> Iterator[tuple[StoredGroup, np.ndarray, np.ndarray]]:
        """For each group that is asked for: where its items stand in ``positions_N``, and their slots in the group."""
        numbers_N, slots_N = np.divmod(positions_N, self._spec.group_items)
        for number in np.unique(numbers_N).tolist():
            group, places = self._group(number), (numbers_N == number).nonzero()[0]
            slots = slots_N[places]
            is_free = slots >= group.items
            is_free |= ~group.done_N[np.minimum(slots, group.items - 1)]
            if is_free.any():
                raise ValueError(f"the position {positions_N[places][is_free][0]} holds no features")
            yield group, places, slots
