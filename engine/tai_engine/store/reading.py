"""What can be read of a feature store.

Shape legend: N items, D embedding size, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store.arrays import StoreArrays, open_group
from tai_engine.store.commits import damaged_group, read_summaries
from tai_engine.store.group_reading import StoredGroup
from tai_engine.store.id_set import IdSet
from tai_engine.store.labels import add_digests, content_of
from tai_engine.store.random_access import ItemReader, Positions
from tai_engine.store.spec import StoredItem, StoreSpec, unknown_parts


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


class StoreReader:
    """The reading half of `FeatureStore`, which see.

    Memory: about 500 bytes per group, plus what a call says.

    Attributes:
        path: its folder.
        spec: its identity and sizes.
        created: when it was made, ISO 8601 in UTC.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the store at ``path``.

        Raises:
            UserError: if there is none, it is cut short, or a newer version made it.
        """
        self.path = Path(path)
        group, attributes = open_group(self.path)
        self.spec = StoreSpec.from_attributes(attributes, path)
        self.created = str((attributes or {}).get("created", ""))
        self._unknown_parts = unknown_parts(attributes or {})
        self._arrays = StoreArrays(self.path, self.spec, group)
        self._records = read_summaries(self.path)

    def __len__(self) -> int:
        """Items of all committed groups, failed ones included."""
        return sum(record.items for record in self._records.values())

    def counts(self) -> dict[str, int]:
        """Committed items by status: ``done`` and ``failed``."""
        done = sum(record.done for record in self._records.values())
        return {"done": done, "failed": len(self) - done}

    def groups(self) -> list[int]:
        """Numbers of the committed groups, in order."""
        return sorted(self._records)

    @property
    def nbytes(self) -> int:
        """Bytes of all committed chunks."""
        return sum(record.bytes for record in self._records.values())

    @property
    def fingerprint(self) -> str:
        """A short hash that changes when groups come or go; equal for two openings of an unchanged store."""
        records = [list(asdict(record).values()) for _, record in sorted(self._records.items())]
        content = json.dumps([self.spec.to_attributes(), self.created, records], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names in the order of the labels; none in a store without labels."""
        return () if self.spec.labels is None else self.spec.labels.class_names

    @property
    def data_fingerprint(self) -> str:
        """32 hexadecimal digits of the ids, texts and labels of all items, in whatever order and groups they came.

        Raises:
            UserError: in a store without texts, or if a record lacks its part.
        """
        self._require_texts()
        return add_digests(map(self._digest, self.groups()))

    def items(self, group: int) -> list[StoredItem]:
        """What became of the inputs of a committed group, in slot order.

        Raises:
            UserError: if there is no such group or it is damaged.
        """
        return self._group(group).stored_items()

    def ledger(self) -> Iterator[StoredItem]:
        """What became of every input, group by group; memory: the items of one group."""
        for group in self.groups():
            yield from self.items(group)

    def known_ids(self) -> IdSet:
        """Ids of all committed items, done or failed; memory: about 16 bytes each."""
        return IdSet(name for group in self.groups() for name in self._group(group).ids_N.tolist())

    def known_contents(self) -> IdSet:
        """Ids, texts and labels (`content_of`) of all committed items; memory: about 16 bytes each."""
        return IdSet(content_of(item.id, item.text, item.labels) for item in self.ledger())

    def labels(self, group: int) -> Tensor:
        """[n, C] bool: labels of the done items of a committed group, in slot order.

        Raises:
            UserError: in a store without labels, if there is no such group or it is damaged.
        """
        self._require_labels()
        stored = self._group(group)
        return torch.from_numpy(stored.labels_NC()[stored.done_N])

    def texts(self, group: int) -> list[str]:
        """Texts of the done items of a committed group, in slot order.

        Raises:
            UserError: in a store without texts, if there is no such group or it is damaged.
        """
        self._require_texts()
        stored = self._group(group)
        texts: list[str] = stored.texts_N()[stored.done_N].tolist()
        return texts

    def read_group(self, group: int) -> FeatureBatch:
        """All done items of a committed group, rows as they are stored; memory: twice that group's rows.

        Raises:
            UserError: if there is no such group or it is damaged.
        """
        stored = self._group(group)
        return stored.batch(0, stored.items, with_fine=self.spec.has_fine)

    def iter_batches(
        self, batch_items: int = 256, *, with_fine: bool = True, groups: Iterable[int] | None = None
    ) -> Iterator[FeatureBatch]:
        """The done items in slot order, rows as they are stored.

        A batch has at most ``batch_items`` items and never spans two groups. Memory: twice the rows of a batch, and
        those of the chunks at its edges.

        Args:
            batch_items: best a multiple of ``spec.chunk_items``, so that no chunk is read twice.
            with_fine: False reads no fine rows (each batch then has none).
            groups: only these groups, in this order; by default all committed ones.

        Raises:
            UserError: for a group that is not there, or is damaged; it names the file.
        """
        for group, start, stop in self._slices(batch_items, groups):
            yield group.batch(start, stop, with_fine=with_fine and self.spec.has_fine)

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
            yield CoarseBatch(positions, group.batch(start, stop, with_fine=False).coarse, labels)

    def read_items(self, positions: Positions, *, with_fine: bool = True) -> FeatureBatch:
        """The items at some positions, in the order given; a position is group x ``spec.group_items`` + slot.

        Fast for a few items from anywhere: only their rows are read, but for the first time that a chunk is touched,
        when its checksum is tested. Memory: the items, one chunk, and what `ItemReader` keeps.

        Args:
            positions: of done items (see `iter_coarse`), all different.
            with_fine: False reads no fine rows (the batch then has none).

        Raises:
            UserError: for a group that is not there, or is damaged; it names the file.
            ValueError: for a position that holds no features or comes twice.
        """
        return self._reader.read_items(positions, with_fine)

    def read_texts(self, positions: Positions) -> list[str]:
        """The texts of the items at some positions, in the order given; memory: these, and those of one group.

        Raises:
            UserError: in a store without texts, for a group that is not there, or is damaged.
            ValueError: for a position that holds no features.
        """
        self._require_texts()
        return self._reader.read_texts(positions)

    def _group(self, number: int) -> StoredGroup:
        if number not in self._records:
            raise UserError(f"The store {self.path} has no group {number}; it has {len(self._records)} groups.")
        return StoredGroup(self.path, self.spec, self._arrays, self._records[number])

    @cached_property
    def _reader(self) -> ItemReader:
        return ItemReader(self.spec, self._arrays, self._group)

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

    def _digest(self, group: int) -> str:
        digest = self._records[group].digest
        if digest is None:
            raise damaged_group(self.path, group, "its record has no digest")
        return digest

    def _require_texts(self) -> None:
        if not self.spec.has_text:
            raise UserError(
                f"The store {self.path} keeps no texts; make a store of sentences with `tai cache texts FILE STORE`."
            )

    def _require_labels(self) -> None:
        if self.spec.labels is None:
            raise UserError(
                f"The store {self.path} has no labels; make one with `tai cache texts FILE STORE --vocabulary V`."
            )
