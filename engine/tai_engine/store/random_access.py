"""A few items from anywhere in a store, in any order, without reading the items around them.

Shape legend: N items, T fine rows of all items together, D embedding size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch

from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.store.arrays import StoreArrays
from tai_engine.store.group_reading import StoredGroup
from tai_engine.store.spec import StoreSpec

Positions: TypeAlias = Sequence[int] | torch.Tensor | np.ndarray

_GROUPS_HELD = 1024


class ItemReader:
    """Random access to the items of one store.

    Memory: what a call returns, one chunk, and for the last 1,024 groups that were touched an id and 13 bytes per slot
    (30 MB in all with groups of 1,024 and short ids).
    """

    def __init__(self, spec: StoreSpec, arrays: StoreArrays, group: Callable[[int], StoredGroup]) -> None:
        """Args: the parts of the store, and what opens a committed group of it."""
        self._spec = spec
        self._arrays = arrays
        self._group = functools.lru_cache(maxsize=_GROUPS_HELD)(group)

    def read_items(self, positions: Positions, with_fine: bool) -> FeatureBatch:
        """See `FeatureStore.read_items`."""
        positions_N = np.asarray(positions, dtype=np.int64)
        n, has_clip = len(positions_N), self._spec.has_coarse_clip
        if len(np.unique(positions_N)) != n:
            raise ValueError("a position is asked for twice, but a batch holds an item once")
        ids_N = np.empty(n, dtype=object)
        counts_N, first_rows_N = np.zeros(n, np.int64), np.zeros(n, np.int64)
        for group, places, slots in self._by_group(positions_N):
            ids_N[places] = group.ids_N[slots].astype(object)
            if with_fine and self._spec.has_fine:
                counts_N[places] = group.counts_N[slots]
                first_rows_N[places] = group.first_rows[slots]
        offsets = offsets_from_counts(torch.from_numpy(counts_N))
        bounds = offsets.tolist()
        coarse_ND, clip_ND, fine_TD = (
            self._new_rows(n),
            self._new_rows(n if has_clip else 0),
            self._new_rows(bounds[-1]),
        )
        for place in np.argsort(positions_N).tolist():  # in the order of the files
            position = int(positions_N[place])
            self._arrays.read_into("coarse", position, coarse_ND[place : place + 1])
            if has_clip:
                self._arrays.read_into("coarse_clip", position, clip_ND[place : place + 1])
            if counts_N[place]:
                self._arrays.read_into("fine", int(first_rows_N[place]), fine_TD[bounds[place] : bounds[place + 1]])
        return FeatureBatch(
            ids=tuple(ids_N),
            coarse=torch.from_numpy(coarse_ND),
            fine=torch.from_numpy(fine_TD),
            offsets=offsets,
            space_key=self._spec.space_key,
            coarse_clip=torch.from_numpy(clip_ND) if has_clip else None,
            check_fine=False,
        )

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

    def _new_rows(self, count: int) -> np.ndarray:
        return np.empty((count, self._spec.dim), dtype=self._spec.row_dtype)
