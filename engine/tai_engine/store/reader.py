"""The vectors of a feature store: group by group, in bounded batches, by position and by id.

Shape legend: N items, D embedding size, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.look_ahead import map_ahead
from tai_engine.store.catalogue import StoreCatalogue
from tai_engine.store.group import StoredGroup
from tai_engine.store.inventory import Inventory
from tai_engine.store.rows import Positions, RandomAccess, RowBuffers, read_slots

_AHEAD = 2
"""So many batches are read, at the same time, while another one is worked on."""


class CoarseBatch(NamedTuple):
    """Items without their fine rows.

    Attributes:
        positions: [N] int64, where the items lie in the store, rising.
        coarse: [N, D] unit rows as they are stored.
        labels: [N, C] bool, None in a store without labels.
    """

    positions: Tensor
    coarse: Tensor
    labels: Tensor | None


class StoreReader(StoreCatalogue):
    """The reading half of `FeatureStore`, which see.

    Memory: about 500 bytes per group, plus what a call says; the memory of up to four batches that were read and are no
    longer needed is kept for the next ones.

    Attributes:
        path: its folder, or its address as text.
        spec: its identity and sizes.
        created: when it was made, ISO 8601 in UTC.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the store at ``path``.

        Raises:
            UserError: if there is none, it is cut short, or a newer version made it.
        """
        super().__init__(path)
        self._buffers = RowBuffers()

    def read_group(self, group: int) -> FeatureBatch:
        """All done items of a committed group, rows as they are stored; memory: twice that group's rows.

        Raises:
            UserError: if there is no such group or it is damaged.
        """
        stored = self._group(group)
        return read_slots(self.spec, self._arrays, stored, slice(None), with_fine=self.spec.has_fine)

    def iter_batches(
        self,
        batch_items: int = 256,
        *,
        with_fine: bool = True,
        groups: Iterable[int] | None = None,
    ) -> Iterator[FeatureBatch]:
        """The done items in slot order, rows as they are stored; the next two batches are read while one is worked on.

        A batch has at most ``batch_items`` items and never spans two groups. Memory: three batches, and what
        `StoreArrays.read_runs` says.

        Args:
            batch_items: best a multiple of ``spec.chunk_items``, so that no chunk is opened twice.
            with_fine: False reads no fine rows (each batch then has none).
            groups: only these groups, in this order; by default all committed ones.

        Raises:
            UserError: for a group that is not there, or is damaged; it names the file.
        """
        for _, batch in self.iter_group_batches(batch_items, with_fine=with_fine, groups=groups):
            yield batch

    def iter_group_batches(
        self,
        batch_items: int = 256,
        *,
        with_fine: bool = True,
        groups: Iterable[int] | None = None,
    ) -> Iterator[tuple[int, FeatureBatch]]:
        """As `iter_batches`, each batch with the number of its group; a group without done items has none."""
        with_fine = with_fine and self.spec.has_fine

        def read(place: tuple[StoredGroup, int, int]) -> tuple[int, FeatureBatch]:
            group, start, stop = place
            slots = slice(start, stop)
            batch = read_slots(self.spec, self._arrays, group, slots, with_fine, self._buffers)
            return group.number, batch

        return map_ahead(read, self._slices(batch_items, groups), workers=_AHEAD, window=_AHEAD)

    def iter_shuffled(self, batch_items: int, seed: int) -> Iterator[FeatureBatch]:
        """All done items, each once, in an order drawn from all orders.

        The next two batches are read while one is worked on. Memory: 16 bytes for each item of the store, three
        batches, and what `RandomAccess` keeps.

        Args:
            batch_items: items of a batch; the last one may have fewer.
            seed: of the order; with the same store and seed it is the same one.

        Raises:
            UserError: for a group that is damaged; it names the file.
        """
        if batch_items < 1:
            raise ValueError(f"batch_items is {batch_items}, expected 1 or more")
        order = np.random.default_rng(seed).permutation(self.done_positions())

        def read(start: int) -> FeatureBatch:
            return self._reader.read_items(order[start : start + batch_items])

        return map_ahead(read, range(0, len(order), batch_items), workers=_AHEAD, window=_AHEAD)

    def done_positions(self) -> np.ndarray:
        """[N] int64, rising: the positions of all items with features; memory: twice 8 bytes each."""
        groups = map(self._group, self.groups())
        found = [group.first_slot + group.done_N.nonzero()[0] for group in groups]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def iter_coarse(self, batch_items: int = 1024, *, groups: Iterable[int] | None = None) -> Iterator[CoarseBatch]:
        """Positions, coarse vectors and labels of the done items in slot order; fine rows are not read.

        A batch has at most ``batch_items`` items and never spans two groups. Memory: twice a batch.

        Args:
            batch_items: as `iter_batches`.
            groups: as `iter_batches`.

        Raises:
            UserError: for a group that is not there, or is damaged; it names the file.
        """
        for group, start, stop in self._slices(batch_items, groups):
            done_N = group.done_N[start:stop]
            positions = torch.from_numpy(done_N.nonzero()[0] + group.first_slot + start)
            labels = None
            if self.spec.labels is not None:
                labels = torch.from_numpy(group.labels_NC(start, stop)[done_N])
            batch = read_slots(self.spec, self._arrays, group, slice(start, stop), with_fine=False)
            yield CoarseBatch(positions, batch.coarse, labels)

    def read_items(self, positions: Positions, *, with_fine: bool = True) -> FeatureBatch:
        """The items at some positions, in the order given; a position is group x ``spec.group_items`` + slot.

        Fast for a few items from anywhere: only their rows are read, but for the first time that a chunk is touched,
        when its checksum is tested. Memory: the items, and what `RandomAccess` keeps.

        Args:
            positions: of done items (see `iter_coarse`), all different.
            with_fine: False reads no fine rows (the batch then has none).

        Raises:
            UserError: for a group that is not there, or is damaged; it names the file.
            ValueError: for a position that holds no features or comes twice.
        """
        return self._reader.read_items(positions, with_fine)

    def read_ids(self, ids: Sequence[str], *, with_fine: bool = True) -> FeatureBatch:
        """The items of some ids, in the order given. Memory: what `read_items` says, and from the first call on what
        `Inventory` says, which is made then.

        Args:
            ids: of items with features, all different.
            with_fine: as `read_items`.

        Raises:
            UserError: for an id that the store holds no features of, or a damaged group.
            ValueError: for an id that comes twice.
        """
        found = {name: self._inventory.find(name) for name in ids}
        positions = {name: item.position for name, item in found.items() if item is not None and item.status == "done"}
        missing = [name for name in found if name not in positions]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"The store {self.path} holds no features of {missing[0]!r}{others}; `tai info {self.path}` says what "
                "it holds."
            )
        return self._reader.read_items([positions[name] for name in ids], with_fine)

    def read_texts(self, positions: Positions) -> list[str]:
        """The texts of the items at some positions, in the order given; memory: these, and those of one group.

        Raises:
            UserError: in a store without texts, for a group that is not there, or is damaged.
            ValueError: for a position that holds no features.
        """
        self._require_texts()
        return self._reader.read_texts(positions)

    def _forget_items(self) -> None:
        """Drop what was remembered of groups, some of which have changed."""
        for name in ("_reader", "_inventory"):
            self.__dict__.pop(name, None)

    @cached_property
    def _inventory(self) -> Inventory:
        return self.inventory()

    @cached_property
    def _reader(self) -> RandomAccess:
        return RandomAccess(self.spec, self._arrays, self._group, self._buffers)

    def _slices(self, batch_items: int, groups: Iterable[int] | None) -> Iterator[tuple[StoredGroup, int, int]]:
        """Groups with the first slot and the end of every batch that has any features."""
        if batch_items < 1:
            raise ValueError(f"batch_items is {batch_items}, expected 1 or more")
        for number in self.groups() if groups is None else groups:
            group = self._group(number)
            for start in range(0, group.items, batch_items):
                stop = min(start + batch_items, group.items)
                if group.done_N[start:stop].any():
                    yield group, start, stop
