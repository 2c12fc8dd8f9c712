"""Items to commit groups: slices are encoded one after another, groups written while the next ones are encoded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch

from tai_engine.caching.stages import Stages
from tai_engine.features import FeatureBatch
from tai_engine.store import StoredItem, StoreSpec
from tai_engine.store.layout.commits import CommitRecord

Payload = TypeVar("Payload")
PayloadIn = TypeVar("PayloadIn", contravariant=True)

SliceCallback = Callable[[int, int], None]
"""Called after each slice with how many of its items are done, and how many failed."""


class GroupStore(Protocol):
    """What writes groups; `tai_engine.store.FeatureStore` does."""

    spec: StoreSpec

    def prepare_group(
        self, group: int, items: Sequence[StoredItem], batches: Sequence[FeatureBatch], /
    ) -> CommitRecord:
        """Write the chunks of a group, durably, and do not commit it yet."""


class PayloadSlice(Protocol[PayloadIn]):
    """Collects payloads, and encodes them together."""

    def __len__(self) -> int:
        """How many there are."""

    def add(self, payload: PayloadIn, name: str, /) -> None:
        """Take one, which need not stay valid."""

    def encode(self, stages: Stages, /) -> FeatureBatch:
        """Features of all, in order; at least one was added."""


@dataclass(frozen=True)
class Prepared(Generic[Payload]):
    """An input on its way to the encoder.

    Attributes:
        group: that it goes to.
        item: what the store will say of it.
        payload: what is encoded; None if it failed.
        ends_group: whether it is the last one of its group.
    """

    group: int
    item: StoredItem
    payload: Payload | None
    ends_group: bool


@dataclass
class _Group:
    """The group that is being filled: items so far, and features of those that were encoded."""

    items: list[StoredItem] = field(default_factory=list)
    batches: list[FeatureBatch] = field(default_factory=list)


def write_groups(
    prepared: Iterable[Prepared[Payload] | None],
    store: GroupStore,
    new_slice: Callable[[], PayloadSlice[Payload]],
    slice_items: int,
    stages: Stages,
    on_slice: SliceCallback | None = None,
) -> Generator[CommitRecord]:
    """Encode and write everything that comes; a record comes out when its group is written and can be committed.

    Slices end where groups end, so that the same groups always give the same slices, and thus the same bytes. When
    anything goes wrong the groups that were finished before come out first.

    Memory: the rows of two groups in the store's dtype, and a slice.

    Args:
        prepared: items in order, those of a group next to each other; None says that nothing more is there yet.
        store: has the groups reserved.
        new_slice: makes what collects payloads and encodes them.
        slice_items: items of a slice, failed ones included.
        stages: the seconds are added to.
        on_slice: called after each slice.
    """
    row_dtype = torch.float32 if store.spec.row_dtype == "float32" else torch.float16
    group, slice_ = _Group(), new_slice()
    begun = 0  # items of the group before this slice
    with _GroupWriter(store, stages) as writer:
        try:
            for one in stages.waiting(prepared):
                if one is None:
                    yield from writer.finish()
                    continue
                group.items.append(one.item)
                if one.payload is not None:
                    with stages.timed("transfer"):
                        slice_.add(one.payload, one.item.id)
                if one.ends_group or len(group.items) - begun == slice_items:
                    failed = len(group.items) - begun - len(slice_)
                    done = len(slice_)
                    if done:
                        group.batches.append(slice_.encode(stages).to("cpu", row_dtype))
                    slice_, begun = new_slice(), len(group.items)
                    if on_slice is not None:
                        on_slice(done, failed)
                    yield from writer.finished()
                if one.ends_group:
                    yield from writer.write(one.group, group)
                    group, begun = _Group(), 0
            yield from writer.finish()
        except GeneratorExit:
            raise
        except BaseException:
            yield from writer.finish()
            raise


class _GroupWriter:
    """Writes a group in a thread of its own while the next one is being encoded."""

    def __init__(self, store: GroupStore, stages: Stages) -> None:
        self._store = store
        self._stages = stages
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._pending: Future[CommitRecord] | None = None

    def __enter__(self) -> _GroupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def write(self, number: int, group: _Group) -> Iterator[CommitRecord]:
        """Begin with a group when the one before is written, whose record comes out."""
        yield from self.finish()
        self._pending = self._thread.submit(self._write, number, group)

    def finished(self) -> Iterator[CommitRecord]:
        """The record of the group that is under way, if it is written by now."""
        if self._pending is not None and self._pending.done():
            yield from self.finish()

    def finish(self) -> Iterator[CommitRecord]:
        """The record of the group that is under way, if there is one."""
        if self._pending is None:
            return
        with self._stages.timed("wait"):
            pending, self._pending = self._pending, None
            record = pending.result()
        yield record

    def _write(self, number: int, group: _Group) -> CommitRecord:
        with self._stages.timed("write"):
            return self._store.prepare_group(number, group.items, group.batches)
