"""Which pictures of a source are to be encoded: new and changed ones, and failed ones on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from tai_engine.decoding.feed import MAX_CARRIED_BYTES, carried_bytes
from tai_engine.decoding.worker import content_hash_of
from tai_engine.errors import UserError
from tai_engine.look_ahead import map_ahead
from tai_engine.store import IdSet
from tai_engine.store.inventory import Inventory, InventoryItem

_WINDOW = 64  # files that are read ahead to compare their contents

Verdict: TypeAlias = Literal["new", "changed", "retried", "skipped"]
Input = TypeVar("Input")


@dataclass(frozen=True)
class Judged(Generic[Input]):
    """An item of the input, and what is to be done with it.

    Attributes:
        item: as it came.
        verdict: ``"skipped"`` if it is in the store and the same as then; all others are encoded.
        replaces: position of what it replaces in the store, None if it replaces nothing.
    """

    item: Input
    verdict: Verdict
    replaces: int | None = None


class InputItem(Protocol):
    """One picture of a source: `tai_engine.sources.SourceItem` is one."""

    @property
    def id(self) -> str:
        """Its name, UTF-8, unique in the source."""

    @property
    def size(self) -> int | None:
        """Bytes, None if not known."""

    @property
    def modified_ns(self) -> int | None:
        """When it was last changed, in nanoseconds since 1970, None if not known."""


@dataclass(frozen=True)
class _Met:
    """An item of the source with what the store knows of it, and the hash of its bytes if that was asked for."""

    item: InputItem
    known: InventoryItem | None
    content_hash: bytes | None = None


class ChangeFinder:
    """Goes through a source and says what is to be done.

    Memory: 16 bytes for each new item, beside the inventory; where contents are compared, a file for each worker, and
    `MAX_CARRIED_BYTES` of those that items carry.
    """

    def __init__(
        self,
        inventory: Inventory | None,
        *,
        retry_failed: bool,
        reader: Callable[[InputItem], bytes] | None,
        workers: int,
    ) -> None:
        """Args:
        inventory: of the store, None if there is none.
        retry_failed: whether failed items that have not changed are tried again.
        reader: an item to its bytes, to compare contents; None compares sizes and times alone.
        workers: threads that read with it.
        """
        self._inventory = inventory
        self._retry_failed = retry_failed
        self._reader = reader
        self._workers = workers
        self._new = IdSet()

    def judge(self, source: Iterable[InputItem]) -> Iterator[Judged[InputItem]]:
        """What is to be done with each item, in the order of the source.

        Raises:
            UserError: for an id that comes twice.
        """
        met = (_Met(item, self._known(item)) for item in source)
        if self._reader is None:
            yield from map(self._judged, met)
            return
        ahead = map_ahead(
            self._hashed,
            met,
            workers=self._workers,
            window=_WINDOW,
            bytes_of=lambda one: carried_bytes(one.item),
            max_bytes=MAX_CARRIED_BYTES,
        )
        with closing(ahead) as hashed:
            yield from map(self._judged, hashed)

    def _known(self, item: InputItem) -> InventoryItem | None:
        known = None if self._inventory is None else self._inventory.find(item.id)
        if self._inventory is not None and known is not None:
            is_first = self._inventory.see(known)
        else:
            is_first = self._new.add(item.id)
        if not is_first:
            raise UserError(f"The id {item.id!r} comes twice in the input; every item needs an id of its own.")
        return known

    def _hashed(self, met: _Met) -> _Met:
        if self._reader is not None and met.known is not None and met.known.content_hash is not None:
            try:
                return _Met(met.item, met.known, content_hash_of(self._reader(met.item)))
            except Exception:  # it cannot be read just now, which does not say that it has changed
                return met
        return met

    def _judged(self, met: _Met) -> Judged[InputItem]:
        if met.known is None:
            return Judged(met.item, "new")
        if _has_changed(met.item, met.known, met.content_hash):
            return Judged(met.item, "changed", met.known.position)
        if self._retry_failed and met.known.status == "failed":
            return Judged(met.item, "retried", met.known.position)
        return Judged(met.item, "skipped")


def _has_changed(item: InputItem, known: InventoryItem, content_hash: bytes | None) -> bool:
    if content_hash is not None:
        return content_hash != known.content_hash
    for now, then in ((item.size, known.size), (item.modified_ns, known.modified_ns)):
        # What a source does not say tells nothing. What the store does not know of a failed item was not there then.
        if now is not None and now != then and (then is not None or known.status == "failed"):
            return True
    return False
