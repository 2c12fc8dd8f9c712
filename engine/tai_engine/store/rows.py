"""The vectors of some items, read from where they lie into one batch, whose memory is used again.

Memory that is fresh from the system costs more than what is read into it: every page is cleared first, at a trap each.

Shape legend: N items, T fine rows of all items together, D embedding size, R runs of entries.
"""

from __future__ import annotations

import functools
import math
import mmap
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.store.group import StoredGroup
from tai_engine.store.layout.arrays import StoreArrays
from tai_engine.store.layout.spec import StoreSpec

Positions: TypeAlias = Sequence[int] | torch.Tensor | np.ndarray
"""Of items: group x ``spec.group_items`` + slot."""

_GROUPS_HELD = 1024
_BUFFERS_KEPT = 4
# Smaller tensors come from torch's own allocator, which is as good for them.
_LEAST_BYTES = 1024 * 1024


@dataclass(frozen=True, eq=False)
class ItemPlaces:
    """Where the vectors of N items lie.

    Attributes:
        ids: their names.
        positions: [N] int64, their slots in the store.
        counts: [N] int64, their fine rows; None if these are not wanted.
        first_rows: [N] int64, where these begin.
    """

    ids: tuple[str, ...]
    positions: np.ndarray
    counts: np.ndarray | None = None
    first_rows: np.ndarray | None = None


def read_features(
    spec: StoreSpec,
    arrays: StoreArrays,
    places: ItemPlaces,
    buffers: RowBuffers | None = None,
) -> FeatureBatch:
    """The items in the order of ``places``, rows as they are stored.

    Memory: the batch, and what `StoreArrays.read_runs` says.

    Args:
        spec: of the store.
        arrays: of the store.
        places: of items with features.
        buffers: where the memory of the vectors comes from; by default torch gives it.

    Raises:
        UserError: for a chunk that is missing or damaged.
        ValueError: for vectors that are none: of a wrong length, or items of the same name.
    """
    one_N = np.ones(len(places.ids), dtype=np.int64)

    def read(name: str, starts_N: np.ndarray, lengths_N: np.ndarray, dtype: str, width: tuple[int, ...]) -> Tensor:
        shape = (int(lengths_N.sum()), *width)
        torch_dtype: torch.dtype = getattr(torch, dtype)
        entries = torch.empty(shape, dtype=torch_dtype) if buffers is None else buffers.empty(shape, torch_dtype)
        starts_R, lengths_R = merged_runs(starts_N, lengths_N)
        arrays.read_runs(name, starts_R.tolist(), lengths_R.tolist(), entries.numpy())
        return entries

    coarse = ("coarse", "coarse_clip") if spec.has_coarse_clip else ("coarse",)
    vectors = [read(name, places.positions, one_N, spec.coarse_dtype, (spec.dim,)) for name in coarse]
    scales_T = torch.empty(0) if spec.is_quantised else None
    if places.counts is None or places.first_rows is None:
        counts_N = np.zeros(len(places.ids), dtype=np.int64)
        fine_TD = torch.empty(
            0, spec.dim, dtype=getattr(torch, spec.row_dtype if spec.is_quantised else spec.coarse_dtype)
        )
    else:
        counts_N = places.counts
        fine_TD = read("fine", places.first_rows, counts_N, spec.row_dtype, (spec.dim,))
        if spec.is_quantised:
            scales_T = read("fine_scale", places.first_rows, counts_N, "float32", ())
    return FeatureBatch(
        ids=places.ids,
        coarse=vectors[0],
        fine=fine_TD,
        offsets=offsets_from_counts(torch.from_numpy(counts_N)),
        space_key=spec.space_key,
        coarse_clip=vectors[1] if spec.has_coarse_clip else None,
        fine_scales=scales_T,
        check_fine=False,
    )


def read_slots(
    spec: StoreSpec,
    arrays: StoreArrays,
    group: StoredGroup,
    slots: slice,
    with_fine: bool,
    buffers: RowBuffers | None = None,
) -> FeatureBatch:
    """The done items among some slots of a group that follow each other; the rest as `read_features`.

    Raises:
        UserError: for a group that is damaged.
    """
    slots_N = group.done_N[slots].nonzero()[0] + slots.indices(group.items)[0]
    places = ItemPlaces(
        ids=tuple(group.ids_N[slots_N].tolist()),
        positions=slots_N + group.first_slot,
        counts=group.counts_N[slots_N].astype(np.int64) if with_fine else None,
        first_rows=group.first_rows[slots_N] if with_fine else None,
    )
    try:
        return read_features(spec, arrays, places, buffers)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise group.damaged(str(error)) from error


def merged_runs(starts_N: np.ndarray, lengths_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same entries in as few runs as there can be: starts [R] and lengths [R], without empty ones."""
    kept = lengths_N > 0
    starts_N, ends_N = starts_N[kept], (starts_N + lengths_N)[kept]
    if not len(starts_N):
        return starts_N, ends_N
    begins = np.append(True, starts_N[1:] != ends_N[:-1])
    starts_R = starts_N[begins]
    return starts_R, ends_N[np.append(begins[1:], True)] - starts_R


class RandomAccess:
    """A few items from anywhere in a store, in any order, without reading the items around them.

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

    def read_items(self, positions: Positions, with_fine: bool = True) -> FeatureBatch:
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
        return read_features(self._spec, self._arrays, where, self._buffers)

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


class RowBuffers:
    """Hands out tensors, and their memory again once nothing refers to them or to views of them any more.

    Memory: that of the tensors in use, and of up to four that are no longer.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        # Memory comes back in whatever thread drops a tensor, perhaps in the middle of `_take`.
        self._lock = threading.RLock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of any content on the CPU, at the beginning of a page if it is large."""
        size = math.prod(shape) * dtype.itemsize
        if size < _LEAST_BYTES:
            return torch.empty(shape, dtype=dtype)
        memory = self._take(size)
        # torch holds on to this very object as long as there is a tensor of it.
        held = memory[:size]
        weakref.finalize(held, self._give_back, memory).atexit = False
        return torch.from_numpy(held).view(dtype).view(shape)

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            fitting = [place for place, memory in enumerate(self._free) if len(memory) >= size]
            if fitting:
                return self._free.pop(min(fitting, key=lambda place: len(self._free[place])))
        return np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)

    def _give_back(self, memory: np.ndarray) -> None:
        with self._lock:
            self._free.append(memory)
            # The largest stay: they do for all others.
            self._free = sorted(self._free, key=len)[-_BUFFERS_KEPT:]
