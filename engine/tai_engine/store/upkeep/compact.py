"""Give back the place of deleted items and of groups that are not full.

The items move to new groups of the same store, and one file decides which groups exist (`commits.read_hidden`): while
the new ones are written it hides these, then it is replaced to hide the old ones. That replacement is the whole switch.
Whenever a compaction is cut off, readers see all items once, in the old groups or in the new ones, and the next writer
removes what is hidden. It works alike in a folder and at an address, and needs room for the items that move.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.files import write_error
from tai_engine.store.feature_store import FeatureStore
from tai_engine.store.layout.chunk_files import ChunkFiles
from tai_engine.store.layout.commits import HIDDEN, CommitRecord, create_record, read_hidden, write_hidden
from tai_engine.store.layout.live_records import read_summaries
from tai_engine.store.layout.spec import StoredItem
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.abstract_lock import StoreLock
from tai_engine.store.places.lock import hold_lock
from tai_engine.store.places.store_files import open_files


@dataclass(frozen=True)
class CompactReport:
    """What a compaction did.

    Attributes:
        path: the store.
        items: done and failed items, the same before and after.
        dropped: deleted items that are gone now.
        groups_before, groups_after: how many groups there were and are.
        bytes_before, bytes_after: their chunks.
    """

    path: str
    items: int
    dropped: int
    groups_before: int
    groups_after: int
    bytes_before: int
    bytes_after: int

    @property
    def freed_bytes(self) -> int:
        """Bytes that were given back."""
        return self.bytes_before - self.bytes_after

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {**asdict(self), "freed_bytes": self.freed_bytes}


def compact_store(store: str | Path, progress: Callable[[int, int], None] | None = None) -> CompactReport:
    """Rewrite a store from the first group on that has deleted items or is not full, so that all groups but the last
    are full; ids, order and vectors stay as they are, bit by bit.

    Where nothing would be gained, nothing is done. Memory: two groups.

    Args:
        store: its path or address.
        progress: gets how many groups were written, and how many are to be.

    Raises:
        UserError: if there is no store, another process is writing it, a group is damaged, or the file
            system refuses; the store is then as it was before.
    """
    filled = FeatureStore.open(store)
    files = open_files(store)
    with hold_lock(files) as lock, filled.writing_under(lock):
        before = read_summaries(files, filled.spec)
        moving = _groups_to_move(list(before.values()), filled.spec.group_items)
        if moving:
            _move(filled, files, lock, moving, progress)
        after = read_summaries(files, filled.spec)
    return CompactReport(
        path=str(files),
        items=sum(map(_live_items, after.values())),
        dropped=sum(len(record.deleted) for record in before.values())
        - sum(len(record.deleted) for record in after.values()),
        groups_before=len(before),
        groups_after=len(after),
        bytes_before=sum(record.bytes for record in before.values()),
        bytes_after=sum(record.bytes for record in after.values()),
    )


def _live_items(record: CommitRecord) -> int:
    return record.items - len(record.deleted)


def _groups_to_move(records: Sequence[CommitRecord], full: int) -> Sequence[CommitRecord]:
    """The groups from the first one on that has deleted items or is not full; none if nothing is gained by moving."""
    first = next((place for place, record in enumerate(records) if _live_items(record) < full), len(records))
    moving = records[first:]
    wanted = -(-sum(map(_live_items, moving)) // full)
    if wanted == len(moving) and not any(record.deleted for record in moving):
        return []
    return moving


def _move(
    store: FeatureStore,
    files: StoreFiles,
    lock: StoreLock,
    moving: Sequence[CommitRecord],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Move all items of some groups, the last ones of the store, to new groups."""
    old = range(moving[0].group, moving[-1].group + 1)
    count = -(-sum(map(_live_items, moving)) // store.spec.group_items)
    new = _place_for(count, old, store.groups(), lock.first_group)
    chunks = ChunkFiles(files, store.spec)
    try:
        write_hidden(files, new)
        for group, (items, batches) in zip(new, _refilled(store, [record.group for record in moving]), strict=True):
            record = store.prepare_group(group, items, batches)
            lock.check()
            create_record(files, record)
            lock.check()
            if progress is not None:
                progress(group - new.start + 1, count)
        lock.check()
        write_hidden(files, old)
        try:
            lock.check()
        except UserError:
            # This process slept between the two, and another one has removed the new groups by now.
            if read_hidden(files) == old:
                files.take_back(HIDDEN)
            raise
        chunks.remove_hidden()
    except BaseException as error:
        # Whichever groups are hidden at this moment are those to be removed. If even that fails, the next writer does.
        with contextlib.suppress(OSError, UserError):
            lock.check()
            chunks.remove_hidden()
        if isinstance(error, OSError):
            raise write_error(str(files), error) from error
        raise


def _place_for(count: int, old: range, groups: Sequence[int], first: int) -> range:
    """Where the new groups go, so that the order of the store stays: right before the old ones if there is a gap, as an
    earlier compaction leaves it, else behind them; nowhere before ``first``."""
    gap = range(max((group + 1 for group in groups if group < old.start), default=first), old.start)
    gap = range(max(gap.start, first), gap.stop)
    start = gap.start if len(gap) >= count else max(old.stop, first)
    return range(start, start + count)


def _refilled(store: FeatureStore, groups: Sequence[int]) -> Iterator[tuple[list[StoredItem], list[FeatureBatch]]]:
    """The items of some groups that are not deleted, in full groups; the last one has what is left."""
    full = store.spec.group_items
    items: list[StoredItem] = []
    batches: list[FeatureBatch] = []
    for group in groups:
        live = [item for item in store.items(group) if item.status != "deleted"]
        batch = store.read_group(group)
        while live:
            taken, live = live[: full - len(items)], live[full - len(items) :]
            done = sum(item.status == "done" for item in taken)
            items += taken
            batches.append(batch[:done])
            batch = batch[done:]
            if len(items) == full:
                yield items, batches
                items, batches = [], []
    if items:
        yield items, batches
