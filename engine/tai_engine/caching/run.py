"""What filling a store with pictures and with sentences have in common: its lock, new groups, commits, counts."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from tai_engine.caching.report import CacheOptions, CacheProgress, CacheReport, ProgressCallback
from tai_engine.caching.space import require_space
from tai_engine.caching.stages import Stages
from tai_engine.decoding.feed import GroupTask
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, StoreSpec
from tai_engine.store.commits import CommitRecord
from tai_engine.store.spec import DEFAULT_CHUNK_ITEMS, DEFAULT_GROUP_ITEMS, ROW_DTYPES

MAX_GROUP_BYTES = 256 * 2**20
"""Rows of a commit group, at most, where its size is chosen automatically."""

_PROGRESS_EVERY = 1000  # skipped items

Input = TypeVar("Input")


class CacheRun(Generic[Input]):
    """One run that fills a store; used as a context manager, in which the store is locked.

    Attributes:
        store: that is filled; None until `create`, if there was none.
        spec: of the store that there is, or will be.
        stages: seconds of each stage.
        new, changed, retried, skipped, missing, deleted: see `CacheReport`; counted by whoever finds out.
    """

    def __init__(
        self,
        path: str | Path,
        spec: StoreSpec,
        progress: ProgressCallback | None,
        total: int | None,
        rows_per_item: float,
    ) -> None:
        """Check an existing store; a new one is made when the first input has been found.

        Raises:
            UserError: for a store of another kind, space or recipe.
        """
        self._begun = time.perf_counter()
        self._path = path
        self._progress = progress
        self._total = total
        self._rows_per_item = rows_per_item
        self._open = ExitStack()
        self.stages = Stages()
        self.new = self.changed = self.retried = self.skipped = self.missing = self.deleted = 0
        self._done = self._failed = 0  # encoded
        self._committed_done = self._committed_failed = self._bytes = 0
        self._reasons: Counter[str] = Counter()
        self._remaining = 0  # items to come, as far as is known
        self._replaced: dict[int, list[int]] = {}
        self._estimated_bytes: int | None = None
        self.store = None if FeatureStore.is_free(path) else FeatureStore.open_or_create(path, spec)
        self.spec = spec if self.store is None else self.store.spec

    def __enter__(self) -> Self:
        if self.store is not None:
            self._open.enter_context(self.store.writing())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def require_space(self, known: int) -> None:
        """Say how much will be written, and refuse if it cannot be held; ``known`` items are in the store.

        Raises:
            UserError: for too little space.
        """
        if self._total is not None:
            self._remaining = max(0, self._total - known)
            self._estimated_bytes = self.spec.estimate_bytes(self._remaining, self._rows_per_item)
            require_space(self._path, self.spec, self._remaining, self._rows_per_item)
        self.report_progress()

    def create(self) -> FeatureStore:
        """The store, made and locked if there was none.

        Raises:
            UserError: if it cannot be made.
        """
        if self.store is None:
            self.store = FeatureStore.create(self._path, self.spec)
            self._open.enter_context(self.store.writing())
        return self.store

    def skip(self) -> None:
        """Count an item that is in the store already."""
        self.skipped += 1
        if self.skipped % _PROGRESS_EVERY == 0:
            self.report_progress()

    def tasks(self, inputs: Iterator[tuple[Input, int | None]]) -> Iterator[GroupTask]:
        """New groups, in the order of the inputs; numbers of groups that were lost are used again.

        Args:
            inputs: with the position in the store of what each replaces, if anything. Taken as the items of a task are,
                so these must be walked through before the next task is asked for.
        """
        store = self.create()
        taken = set(store.groups())
        reserved = 0
        for made, number in enumerate(n for n in itertools.count() if n not in taken):
            first = next(inputs, None)
            if first is None:
                return
            if number >= reserved:
                # At once for all that are foreseen, since it takes some dozen writes; later ones were not foreseen.
                foreseen = max(1, -(-self._remaining // self.spec.group_items) - made)
                reserved = _nth_free(taken, number, foreseen) + 1
                store.reserve(reserved)
            rest = itertools.islice(inputs, self.spec.group_items - 1)
            yield GroupTask(number, self._noting(number, itertools.chain([first], rest)))

    def _noting(self, group: int, inputs: Iterable[tuple[Input, int | None]]) -> Iterator[Input]:
        for item, position in inputs:
            if position is not None:
                self._replaced.setdefault(group, []).append(position)
            yield item

    def on_slice(self, done: int, failed: int) -> None:
        """Count items that were encoded."""
        self._done += done
        self._failed += failed
        self.report_progress()

    def commit(self, records: Iterable[CommitRecord]) -> None:
        """Commit groups as they come; what they replace is deleted after that, so that nothing is ever lost.

        Raises:
            UserError: when the file system refuses.
        """
        store = self.create()
        for record in records:
            with self.stages.timed("write"):
                store.commit_group(record)
                replaced = self._replaced.pop(record.group, None)
                if replaced:
                    store.delete(replaced)
            self._committed_done += record.done
            self._committed_failed += len(record.failed)
            self._bytes += record.bytes
            self._reasons.update(reason.partition(":")[0] for reason in record.failed.values())

    def report(self) -> CacheReport:
        """What was done.

        Raises:
            UserError: if there was nothing to do and there is no store.
        """
        if self.store is None:
            raise UserError("There is nothing to cache: the input holds no items; check its path.")
        self.report_progress()
        return CacheReport(
            items=self._committed_done + self._committed_failed + self.skipped,
            done=self._committed_done,
            failed=self._committed_failed,
            skipped=self.skipped,
            new=self.new,
            changed=self.changed,
            retried=self.retried,
            missing=self.missing,
            deleted=self.deleted,
            seconds=time.perf_counter() - self._begun,
            stage_seconds=dict(self.stages.seconds),
            bytes_written=self._bytes,
            reasons=dict(self._reasons.most_common()),
        )

    def report_progress(self) -> None:
        """Call whoever wants to know."""
        if self._progress is not None:
            self._progress(
                CacheProgress(
                    done=self._done,
                    failed=self._failed,
                    skipped=self.skipped,
                    total=self._total,
                    seconds=time.perf_counter() - self._begun,
                    stage_seconds=dict(self.stages.seconds),
                    estimated_bytes=self._estimated_bytes,
                )
            )


def _nth_free(taken: set[int], first: int, count: int) -> int:
    """The last of ``count`` numbers from ``first`` on that are not taken."""
    free = (number for number in itertools.count(first) if number not in taken)
    return next(itertools.islice(free, count - 1, None))


def group_sizes(options: CacheOptions, dim: int, rows_per_item_max: int) -> tuple[int, int]:
    """``group_items`` and ``chunk_items`` of a new store, see `CacheOptions`."""
    group_items = options.group_items
    if not group_items:
        item_bytes = (rows_per_item_max + 2) * dim * ROW_DTYPES[options.row_dtype]
        group_items = DEFAULT_GROUP_ITEMS
        while group_items > DEFAULT_CHUNK_ITEMS and group_items * item_bytes > MAX_GROUP_BYTES:
            group_items //= 2
    # A group is whole chunks; of an odd size the chunk is the largest divisor.
    chunk_items = next(n for n in range(min(DEFAULT_CHUNK_ITEMS, group_items), 0, -1) if group_items % n == 0)
    return group_items, chunk_items
