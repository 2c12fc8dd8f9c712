"""Which pictures of a source are to be encoded: new and changed ones, and failed ones on request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tai_engine.caching.run import CacheRun
from tai_engine.decoding.worker import content_hash_of
from tai_engine.errors import UserError
from tai_engine.store import IdSet
from tai_engine.store.inventory import Inventory, InventoryItem

_WINDOW = 64  # files that are read ahead to compare their contents

Value = TypeVar("Value")
Result = TypeVar("Result")


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
    content_hash: bytes | None


class Selection:
    """Goes through a source and says what is to be done; counts it in the run.

    Memory: 16 bytes for each new item, beside the inventory.

    Args:
        inventory: of the store, None if there is none.
        run: where items are counted.
        retry_failed: whether failed items that have not changed are tried again.
        reader: an item to its bytes, to compare contents; None compares sizes and times alone.
        workers: threads that read with it.
    """

    def __init__(
        self,
        inventory: Inventory | None,
        run: CacheRun[InputItem],
        *,
        retry_failed: bool,
        reader: Callable[[InputItem], bytes] | None,
        workers: int,
    ) -> None:
        self._inventory = inventory
        self._run = run
        self._retry_failed = retry_failed
        self._reader = reader
        self._workers = workers
        self._new = IdSet()

    def of(self, source: Iterable[InputItem]) -> Iterator[tuple[InputItem, int | None]]:
        """Items to be encoded, with the position of what each replaces.

        Raises:
            UserError: for an id that comes twice.
        """
        met = ((item, self._known(item)) for item in source)
        if self._reader is None:
            yield from self._chosen(_Met(item, known, None) for item, known in met)
            return
        with closing(map_ahead(self._hashed, met, self._workers, _WINDOW)) as hashed:
            yield from self._chosen(hashed)

    def _known(self, item: InputItem) -> InventoryItem | None:
        known = None if self._inventory is None else self._inventory.find(item.id)
        if self._inventory is not None and known is not None:
            is_first = self._inventory.see(known)
        else:
            is_first = self._new.add(item.id)
        if not is_first:
            raise UserError(f"The id {item.id!r} comes twice in the input; every item needs an id of its own.")
        return known

    def _hashed(self, met: tuple[InputItem, InventoryItem | None]) -> _Met:
        item, known = met
        content_hash = None
        if self._reader is not None and known is not None and known.content_hash is not None:
            try:
                content_hash = content_hash_of(self._reader(item))
            except Exception:  # it cannot be read just now, which does not say that it has changed
                content_hash = None
        return _Met(item, known, content_hash)

    def _chosen(self, met: Iterable[_Met]) -> Iterator[tuple[InputItem, int | None]]:
        run = self._run
        for one in met:
            if one.known is None:
                run.new += 1
                yield one.item, None
            elif _has_changed(one.item, one.known, one.content_hash):
                run.changed += 1
                yield one.item, one.known.position
            elif self._retry_failed and one.known.status == "failed":
                run.retried += 1
                yield one.item, one.known.position
            else:
                run.skip()


def _has_changed(item: InputItem, known: InventoryItem, content_hash: bytes | None) -> bool:
    if content_hash is not None:
        return content_hash != known.content_hash
    for now, then in ((item.size, known.size), (item.modified_ns, known.modified_ns)):
        # What a source does not say tells nothing. What the store does not know of a failed item was not there then.
        if now is not None and now != then and (then is not None or known.status == "failed"):
            return True
    return False


def map_ahead(
    function: Callable[[Value], Result], inputs: Iterable[Value], workers: int, window: int
) -> Generator[Result]:
    """``function`` of every input, in order, computed by ``workers`` threads up to ``window`` inputs ahead.

    Memory: ``window`` results. Closing the iterator waits for the calls under way and drops the rest.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    ahead: deque[Future[Result]] = deque()
    try:
        for item in inputs:
            ahead.append(pool.submit(function, item))
            if len(ahead) >= window:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
