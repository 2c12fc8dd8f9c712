"""What filling a store with pictures and with sentences have in common: its lock, new groups, commits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from tai_engine.caching.changes import Judged
from tai_engine.caching.counting import RunCounter
from tai_engine.caching.report import CacheReport, ProgressCallback
from tai_engine.caching.sizes import require_space
from tai_engine.decoding.feed import GroupTask, carried_bytes
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, StoreSpec
from tai_engine.store.layout.commits import CommitRecord
from tai_engine.store.origins import Origin

Input = TypeVar("Input")


class CacheRun(Generic[Input]):
    """One run that fills a store; used as a context manager, in which the store is locked.

    Attributes:
        store: that is filled; None until `create`, if there was none.
        spec: of the store that there is, or will be.
        counter: of what becomes of the items.
    """

    def __init__(
        self,
        path: str | Path,
        spec: StoreSpec,
        progress: ProgressCallback | None,
        total: int | None,
        origin: Origin | None = None,
    ) -> None:
        """Check an existing store; a new one is made when the first input has been found.

        Raises:
            UserError: for a store of another kind, space or recipe.
        """
        self._path = path
        self._total = total
        self._foreseen = 0  # items to come, as far as is known
        self._open = ExitStack()
        self._replaced: dict[int, list[int]] = {}
        self.counter = RunCounter(progress, total)
        self.store = None if FeatureStore.is_free(path) else FeatureStore.open_or_create(path, spec)
        self.spec = spec if self.store is None else self.store.spec
        self._origin = origin

    def __enter__(self) -> Self:
        if self.store is not None:
            self._begin_writing(self.store)
        return self

    def _begin_writing(self, store: FeatureStore) -> None:
        with ExitStack() as stack:
            stack.enter_context(store.writing())
            if self._origin is not None:
                store.set_origin(self._origin)
            self._open = stack.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def require_space(self, known: int, rows_per_item: float) -> None:
        """Say how much will be written, and refuse if it cannot be held.

        Args:
            known: items that are in the store.
            rows_per_item: fine rows that each of the others will have, about.

        Raises:
            UserError: for too little space.
        """
        if self._total is not None:
            self._foreseen = max(0, self._total - known)
            self.counter.estimated_bytes = self.spec.estimate_bytes(self._foreseen, rows_per_item)
            require_space(self._path, self.spec, self._foreseen, rows_per_item)
        self.counter.tell()

    def create(self) -> FeatureStore:
        """The store, made and locked if there was none.

        Raises:
            UserError: if it cannot be made, or another process has filled it already.
        """
        if self.store is None:
            self.store = FeatureStore.open_or_create(self._path, self.spec)
            self._begin_writing(self.store)
            if self.store.groups():
                # Between the two steps another process came, filled it and went.
                raise UserError(
                    f"Another process has filled the store {self._path} since this one began; run the same command "
                    "again to go on."
                )
        return self.store

    def tasks(self, judged: Iterable[Judged[Input]], max_bytes: int | None = None) -> Iterator[GroupTask]:
        """New groups of the inputs that are to be encoded, in their order; numbers of groups that were lost are used
        again. There is nothing, and no store is made, if there are no such inputs.

        Args:
            judged: taken as the items of a task are, so these must be walked through before the next task is asked for.
            max_bytes: a group ends where its items carry so many bytes with them; None is no limit.
        """
        inputs = self._counted(judged)
        first = next(inputs, None)
        if first is None:
            return
        inputs = itertools.chain([first], inputs)
        store = self.create()
        reserved = 0
        for made, number in enumerate(store.free_groups()):
            first = next(inputs, None)
            if first is None:
                return
            if number >= reserved:
                # At once for all that are foreseen, since it takes some dozen writes; later ones were not foreseen.
                foreseen = max(1, -(-self._foreseen // self.spec.group_items) - made)
                free = (group for group in store.free_groups() if group >= number)
                reserved = next(itertools.islice(free, foreseen - 1, None)) + 1
                store.reserve(reserved)
            yield GroupTask(number, self._noting(number, self._group_of(itertools.chain([first], inputs), max_bytes)))

    def _group_of(self, inputs: Iterator[Judged[Input]], max_bytes: int | None) -> Iterator[Judged[Input]]:
        carried = 0
        for one in itertools.islice(inputs, self.spec.group_items):
            yield one
            carried += carried_bytes(one.item)
            if max_bytes is not None and carried >= max_bytes:
                return

    def _counted(self, judged: Iterable[Judged[Input]]) -> Iterator[Judged[Input]]:
        for one in judged:
            self.counter.selected(one.verdict)
            if one.verdict != "skipped":
                yield one

    def _noting(self, group: int, inputs: Iterable[Judged[Input]]) -> Iterator[Input]:
        for one in inputs:
            if one.replaces is not None:
                self._replaced.setdefault(group, []).append(one.replaces)
            yield one.item

    def commit(self, records: Iterable[CommitRecord]) -> None:
        """Commit groups as they come; what they replace is deleted after that, so that nothing is ever lost.

        Raises:
            UserError: when the file system refuses.
        """
        for record in records:
            store = self.create()
            with self.counter.stages.timed("write"):
                store.commit_group(record)
                replaced = self._replaced.pop(record.group, None)
                if replaced:
                    store.delete(replaced)
            self.counter.committed(record)

    def end(self, missing: Sequence[int] = (), *, delete: bool = False, kept_because: str = "") -> CacheReport:
        """What was done, after what is missing was deleted or not.

        Args:
            missing: positions of the items of the store that were not in the input.
            delete: whether they go.
            kept_because: why not, if that was asked for.

        Raises:
            UserError: if there was nothing to do and there is no store, or the file system refuses.
        """
        if self.store is None:
            raise UserError("There is nothing to cache: the input holds no items; check its path.")
        if delete and missing:
            with self.counter.stages.timed("write"):
                self.store.delete(missing)
        self.counter.missing(len(missing), len(missing) if delete else 0, kept_because)
        return self.counter.report()
