"""What a store says of itself and of its items, without their vectors.

Shape legend: C classes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.store.group import StoredGroup
from tai_engine.store.inventory import IdSet, Inventory
from tai_engine.store.layout.array_layout import open_group
from tai_engine.store.layout.arrays import StoreArrays
from tai_engine.store.layout.labels import add_digests, content_of
from tai_engine.store.layout.live_records import read_summaries
from tai_engine.store.layout.spec import StoredItem, StoreSpec, unknown_parts
from tai_engine.store.origins import origins_of
from tai_engine.store.places.damage import DamagedGroupError
from tai_engine.store.places.store_files import open_files


class StoreCatalogue:
    """The part of `FeatureStore` that knows which items there are.

    Memory: about 500 bytes per group, plus what a call says.

    Attributes:
        path: its folder, or its address as text.
        spec: its identity and sizes.
        created: when it was made, ISO 8601 in UTC.
        unknown_parts: what it has that this version does not know.
        origins: the sources of its items, as far as they are known.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the store at ``path``.

        Raises:
            UserError: if there is none, it is cut short, or a newer version made it.
        """
        self._files = open_files(path)
        self.path = self._files.path
        group, attributes = open_group(self._files)
        self.spec = StoreSpec.from_attributes(attributes, path)
        self.created = str((attributes or {}).get("created", ""))
        self.unknown_parts = unknown_parts(attributes or {})
        self.origins = origins_of(attributes or {})
        self._arrays = StoreArrays(self._files, self.spec, group)
        self._records = read_summaries(self._files, self.spec)
        self._arrays.reach(max(self._records, default=-1) + 1)

    def __len__(self) -> int:
        """Items of all committed groups, failed ones included, deleted ones not."""
        return sum(record.items - len(record.deleted) for record in self._records.values())

    def counts(self) -> dict[str, int]:
        """Committed items by status: ``done`` and ``failed``."""
        done = sum(record.live_done for record in self._records.values())
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
        """What became of the inputs of a committed group, in slot order, deleted ones included.

        Raises:
            UserError: if there is no such group or it is damaged.
        """
        return self._group(group).stored_items()

    def ledger(self) -> Iterator[StoredItem]:
        """What became of every input that was not deleted, group by group; memory: the items of one group."""
        for group in self.groups():
            yield from (item for item in self.items(group) if item.status != "deleted")

    def known_ids(self) -> IdSet:
        """Ids of all committed items, done or failed; memory: about 16 bytes each."""
        return IdSet(name for group in self.groups() for name in self._group(group).live_ids())

    def known_contents(self) -> IdSet:
        """Ids, texts and labels (`content_of`) of all committed items; memory: about 16 bytes each."""
        return IdSet(content_of(item.id, item.text, item.labels) for item in self.ledger())

    def ids_at(self, positions: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Positions that rise with the ids of the items there, deleted or not; memory: the ids of one group.

        Raises:
            UserError: for a damaged group.
        """
        for number, some in itertools.groupby(positions, lambda position: position // self.spec.group_items):
            group = self._group(number)
            for position in some:
                yield position, str(group.ids_N[position - group.first_slot])

    def inventory(self, *, with_hashes: bool = False) -> Inventory:
        """All items by id, as they are now; memory: see `Inventory`.

        Args:
            with_hashes: the hashes of their inputs too, in a store that keeps these.

        Raises:
            UserError: for a damaged group.
        """
        groups = map(self._group, self.groups())
        return Inventory(groups, len(self), with_hashes=with_hashes and self.spec.has_content_hash)

    def _group(self, number: int) -> StoredGroup:
        if number not in self._records:
            raise UserError(f"The store {self.path} has no group {number}; it has {len(self._records)} groups.")
        return StoredGroup(self._files, self.spec, self._arrays, self._records[number])

    def _digest(self, group: int) -> str:
        digest = self._records[group].digest
        if digest is None:
            raise DamagedGroupError(self._files, group, "its record has no digest")
        return digest

    def _require_texts(self) -> None:
        if not self.spec.has_text:
            raise UserError(
                f"The store {self.path} keeps no texts; make a store of sentences with `tai cache texts FILE STORE`."
            )
