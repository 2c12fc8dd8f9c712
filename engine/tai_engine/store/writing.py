"""A feature store while it is being changed: under its lock, of which both ends leave it tidy."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Self

from tai_engine.errors import UserError
from tai_engine.files import write_error
from tai_engine.store.layout.commits import HIDDEN
from tai_engine.store.origins import Origin, write_origin
from tai_engine.store.places.abstract_files import METADATA
from tai_engine.store.places.abstract_lock import StoreLock
from tai_engine.store.places.damage import unreadable
from tai_engine.store.places.lock import fenced, hold_lock
from tai_engine.store.reader import StoreReader


class WritableStore(StoreReader):
    """The part of `FeatureStore`, which see, that holds the lock, and makes place for groups.

    Attributes:
        path: its folder, or its address as text.
        spec: its identity and sizes.
        created: when it was made, ISO 8601 in UTC.
    """

    _lock: StoreLock | None = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[Self]:
        """Hold the store's lock for the time of the body, which all changes of the store need; may be nested.

        What another process has changed since this store was opened is looked at again, and what a compaction that was
        cut off has left, or a killed writer under temporary names, is removed.

        Raises:
            UserError: at once, if another process is writing, for a store that was replaced, and when the file system
                refuses.
        """
        if self._lock is not None:
            yield self
            return
        with hold_lock(self._files) as lock, self.writing_under(lock):
            yield self

    @contextlib.contextmanager
    def writing_under(self, lock: StoreLock) -> Iterator[Self]:
        """The same as `writing` for a caller that holds the store's lock already."""
        spec = self.spec
        self._lock = lock
        try:
            super().__init__(self.path)
            if self.spec != spec:
                raise UserError(f"The store {self.path} was replaced by another one; run the same command again.")
            self._forget_items()
            with fenced(self._files, lock):
                if lock.must_skip_groups:
                    lock.keep_out_of(max(self._arrays.groups_begun(), *(group + 1 for group in (-1, *self._records))))
                self._restore_lengths(lock)
                self._remove_leftovers(lock)
                yield self
                self._restore_lengths(lock)
        finally:
            self._lock = None

    def free_groups(self) -> Iterator[int]:
        """The numbers of no committed group, rising: where the next ones go, or damaged ones are made again.

        Within `writing`, those are left out that another writer may still be at work on that has lost the right to it.
        """
        first = 0 if self._lock is None else self._lock.first_group
        return (group for group in itertools.count(first) if group not in self._records)

    def reserve(self, groups: int) -> None:
        """Lengthen all arrays to hold the groups below this number, so that other processes can prepare these.

        Raises:
            UserError: when the file system refuses, or another process took the store over.
        """
        self._held_lock().check()
        self._arrays.reserve(groups)

    def set_origin(self, origin: Origin) -> None:
        """Note where the items whose ids begin with the prefix of ``origin`` come from, durably.

        Raises:
            UserError: when the file system refuses, or another process took the store over.
            RuntimeError: outside of `writing`.
        """
        self._held_lock().check()
        if origin not in self.origins:
            try:
                self.origins = write_origin(self._files, self.origins, origin)
            except OSError as error:
                raise unreadable(self._files, METADATA, error) from error

    def _held_lock(self) -> StoreLock:
        if self._lock is None:
            raise RuntimeError("a store is changed within `with store.writing():` only")
        return self._lock

    def _check_lock(self) -> None:
        """Whoever prepares groups for the holder of the lock has none to look at: its groups are its own for good."""
        if self._lock is not None:
            self._lock.check()

    def _restore_lengths(self, lock: StoreLock) -> None:
        """Make arrays as long again as they were: a writer that slept may have put back an old length."""
        if not lock.can_replace:
            self._arrays.refresh()
            self._arrays.reserve(max(self._records, default=-1) + 1)

    def _remove_leftovers(self, lock: StoreLock) -> None:
        """Remove what a compaction that was cut off left, and, of a killed writer, files of temporary names."""
        try:
            if self._files.exists(HIDDEN):
                self._arrays.chunk_files.remove_hidden()
            if lock.follows_dead:
                self._arrays.chunk_files.remove_temporaries()
        except OSError as error:
            raise write_error(self.path, error) from error
