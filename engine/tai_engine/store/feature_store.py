"""The feature store: FeatureBatches in a Zarr v3 group that any Zarr reader understands.

The format is described in STORE_FORMAT.md. In short: every item has a slot, slots come in commit groups, a group is
written whole and then committed by one record; a group without its record does not exist.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.files import write_error
from tai_engine.store.group import check_group, fine_columns, group_columns
from tai_engine.store.layout.array_layout import create_arrays
from tai_engine.store.layout.commits import CommitRecord, create_record, record_name
from tai_engine.store.layout.labels import content_of, contents_digest
from tai_engine.store.layout.live_records import delete_slots, deletion_names, read_live_record
from tai_engine.store.layout.spec import StoredItem, StoreSpec
from tai_engine.store.places.abstract_files import PlaceTakenError
from tai_engine.store.places.damage import unreadable
from tai_engine.store.places.store_files import open_files
from tai_engine.store.rows import Positions
from tai_engine.store.writing import WritableStore


class FeatureStore(WritableStore):
    """Features on disk: created or opened, filled a group at a time, read in bounded batches.

    One process writes a store at a time, within `writing`. Memory: about 500 bytes per group, plus what a call says.

    Attributes:
        path: its folder, or its address as text.
        spec: its identity and sizes.
        created: when it was made, ISO 8601 in UTC.
    """

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open the store at ``path``.

        Raises:
            UserError: if there is none, it is cut short, or a newer version made it.
        """
        return cls(path)

    @classmethod
    def create(cls, path: str | Path, spec: StoreSpec) -> FeatureStore:
        """Make an empty store; it appears at ``path`` whole or not at all.

        Raises:
            UserError: if something lies there already, or the place cannot be written.
        """
        if not cls.is_free(path):
            raise PlaceTakenError(str(path))
        with open_files(path).new_store() as folder:
            create_arrays(folder, spec)
        return cls(path)

    @classmethod
    def open_or_create(cls, path: str | Path, spec: StoreSpec) -> FeatureStore:
        """Open the store at ``path`` to go on filling it with features of ``spec``, or create it.

        Raises:
            UserError: as `open` and `create` do, or if the store there is of another kind, space, recipe or vocabulary.
        """
        if cls.is_free(path):
            with contextlib.suppress(PlaceTakenError):  # by another process, in this moment
                return cls.create(path, spec)
        store = cls(path)
        if store.unknown_parts:
            unknown = ", ".join(store.unknown_parts)
            raise UserError(
                f"The store {path} has parts that this tai-engine cannot fill ({unknown}); upgrade tai-engine to go on "
                "with it."
            )
        store.spec.require_compatible(spec, path)
        return store

    @staticmethod
    def is_free(path: str | Path) -> bool:
        """Whether a store can be made at ``path``: nothing is there, or an empty folder.

        Raises:
            UserError: if the place cannot be looked at.
        """
        try:
            return open_files(path).is_free()
        except OSError as error:
            raise UserError(f"The folder {path} cannot be read ({error.strerror or error}); check the path.") from error

    def write_group(
        self, group: int, items: Sequence[StoredItem], batches: Sequence[FeatureBatch] = ()
    ) -> CommitRecord:
        """Write a group that is not committed yet, then commit it: `prepare_group` and `commit_group` in one.

        If anything goes wrong before the commit, the group's chunks are taken away again and the store is as before.

        Args:
            group: its number, see `free_groups`.
            items: as `prepare_group`.
            batches: as `prepare_group`.

        Raises:
            UserError: when the file system refuses, or another process took the store over.
            ValueError: for items and features that do not fit each other or the store.
            RuntimeError: outside of `writing`.
        """
        self._held_lock()
        record = self.prepare_group(group, items, batches)
        self._commit(record)
        return record

    def prepare_group(
        self, group: int, items: Sequence[StoredItem], batches: Sequence[FeatureBatch] = ()
    ) -> CommitRecord:
        """Write the chunks of a group that is not committed yet, durably; `commit_group` then makes it exist.

        One process at a time prepares a group. It needs not be the one that holds the lock; `reserve` must then have
        made place for the group. If anything goes wrong, the chunks are taken away again. Memory: the coarse rows of
        the group and two chunks of fine rows, beside the arguments.

        Args:
            group: its number.
            items: one per slot, in order, done or failed; at most ``spec.group_items``.
            batches: features of the done items in the same order, in any number of pieces.

        Raises:
            UserError: when the file system refuses.
            ValueError: for items and features that do not fit each other or the store.
            RuntimeError: without the lock, if there is no place for the group.
        """
        if group < 0 or group in self._records:
            raise ValueError(f"group {group} is committed already or negative")
        spec = self.spec
        check_group(spec, items, batches)
        self._require_place(group)
        columns = group_columns(spec, items, batches)
        digest = contents_digest(content_of(i.id, i.text, i.labels) for i in items) if spec.has_text else None
        first_row, rows = group * spec.group_rows, 0
        with self._undone_on_failure(group):
            self._check_lock()
            # Whatever an earlier, uncommitted attempt left must not mingle with this one.
            self._remove_chunks(group)
            for name, values in columns.items():
                self._arrays.write(name, group * spec.group_items, values)
            if spec.has_fine:
                rows = self._arrays.write_rows(first_row, (fine_columns(spec, batch) for batch in batches))
            self._arrays.sync(group)
            record = CommitRecord(
                group=group,
                items=len(items),
                done=sum(item.status == "done" for item in items),
                first_row=first_row,
                rows=rows,
                bytes=0,
                failed={slot: item.reason or "" for slot, item in enumerate(items) if item.status == "failed"},
                digest=digest,
            )
            # Measured as they lie there now, so that what got lost on the way is never committed.
            return replace(record, bytes=self._arrays.chunk_files.total_bytes(record))

    def commit_group(self, record: CommitRecord) -> None:
        """Commit a group that `prepare_group` wrote, here or elsewhere.

        Raises:
            UserError: when the file system refuses, if chunks of the group are missing, or another process took the
                store over.
            ValueError: if the group is committed already.
            RuntimeError: outside of `writing`.
        """
        self._held_lock()
        if record.group in self._records:
            raise ValueError(f"group {record.group} is committed already")
        try:
            if self._arrays.chunk_files.total_bytes(record) == record.bytes:
                self._commit(record)
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise unreadable(self._files, record_name(record.group), error) from error
        raise UserError(
            f"The chunks of group {record.group} of the store {self.path} are not those that were prepared: something "
            "else removed or replaced them; run the same command again to redo its items."
        )

    def delete(self, positions: Positions) -> int:
        """Delete items, done or failed: they are marked in their groups' records, durably, group by group.

        Their place is given back by a compaction only.

        Args:
            positions: group x ``spec.group_items`` + slot of each; those deleted before are passed over.

        Returns:
            How many were deleted.

        Raises:
            UserError: when the file system refuses, or another process took the store over.
            ValueError: for a position that holds no item; nothing is deleted then.
            RuntimeError: outside of `writing`.
        """
        self._held_lock()
        positions_N = np.unique(np.asarray(positions, dtype=np.int64))
        numbers_N, slots_N = np.divmod(positions_N, self.spec.group_items)
        for position, number, slot in zip(positions_N.tolist(), numbers_N.tolist(), slots_N.tolist(), strict=True):
            if number not in self._records or slot >= self._records[number].items:
                raise ValueError(f"the position {position} holds no item")
        count = 0
        try:
            for number in np.unique(numbers_N).tolist():
                count += self._delete_slots(number, slots_N[numbers_N == number].tolist())
        finally:
            self._forget_items()
        return count

    def _delete_slots(self, group: int, slots: list[int]) -> int:
        deletions = deletion_names(self._files).get(group, ())
        record = read_live_record(self._files, self.spec, group, deletions)
        new: dict[int, str | None] = dict.fromkeys(sorted(set(slots) - set(record.deleted)))
        if not new:
            return 0
        if self.spec.has_text:
            items = self.items(group)
            new = {s: contents_digest([content_of(items[s].id, items[s].text, items[s].labels)]) for s in new}
        lock = self._held_lock()
        lock.check()
        record = delete_slots(self._files, record, new, can_replace=lock.can_replace)
        self._records[group] = record.summary()
        return len(new)

    def _commit(self, record: CommitRecord) -> None:
        lock = self._held_lock()
        with self._undone_on_failure(record.group):
            lock.check()
            create_record(self._files, record)
        try:
            lock.check()
        except UserError:
            # This process slept between the two, and another one may have made the same items again by now.
            self._files.take_back(record_name(record.group))
            raise
        self._records[record.group] = record.summary()
        self._forget_items()

    def _require_place(self, group: int) -> None:
        """Who holds the lock lengthens arrays as it goes; all others find them long enough."""
        if self._lock is None and not self._arrays.is_reserved(group + 1):
            self._arrays.refresh()
            if not self._arrays.is_reserved(group + 1):
                raise RuntimeError(f"there is no place for group {group}: the holder of the lock must reserve it")

    @contextlib.contextmanager
    def _undone_on_failure(self, group: int) -> Iterator[None]:
        """Also on Ctrl-C: the space of a group that was not committed is given back."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(OSError, UserError):
                self._check_lock()
                if not self._files.exists(record_name(group)):
                    self._remove_chunks(group)
            if isinstance(error, OSError):
                raise write_error(self.path, error) from error
            raise

    def _remove_chunks(self, group: int) -> None:
        for name in list(self._arrays.chunk_files.existing(group)):
            self._files.remove(name)
