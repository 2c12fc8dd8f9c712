"""The feature store: FeatureBatches in a Zarr v3 group that any Zarr reader understands.

The format is described in STORE_FORMAT.md. In short: every item has a slot, slots come in commit groups, a group is
written whole and then committed by one record; a group without its record does not exist.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tai_engine.atomic import sync_directory, write_error
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store.arrays import create_arrays
from tai_engine.store.commits import CommitRecord, record_path, write_record
from tai_engine.store.group_writing import check_group, group_columns, stored_rows
from tai_engine.store.labels import content_of, contents_digest
from tai_engine.store.reading import StoreReader
from tai_engine.store.spec import StoredItem, StoreSpec


class FeatureStore(StoreReader):
    """Features on disk: created or opened, filled a group at a time, read in bounded batches.

    One process writes a store at a time. Memory: about 500 bytes per group, plus what a call says.

    Attributes:
        path: its folder.
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
        path = Path(path)
        if not cls.is_free(path):
            raise UserError(f"Something lies at {path} already; choose another path for the new store.")
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            create_arrays(temporary, spec)
            temporary.rename(path)
            sync_directory(path.parent)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls(path)

    @classmethod
    def open_or_create(cls, path: str | Path, spec: StoreSpec) -> FeatureStore:
        """Open the store at ``path`` to go on filling it with features of ``spec``, or create it.

        Raises:
            UserError: as `open` and `create` do, or if the store there is of another kind, space, recipe or vocabulary.
        """
        if cls.is_free(path):
            return cls.create(path, spec)
        store = cls(path)
        if store._unknown_parts:
            unknown = ", ".join(store._unknown_parts)
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
        path = Path(path)
        try:
            return not path.exists() or (path.is_dir() and not any(path.iterdir()))
        except OSError as error:
            raise UserError(f"The folder {path} cannot be read ({error.strerror}); check the path.") from error

    def next_group(self) -> int:
        """The lowest number of no committed group: where the next one goes, or a damaged one is made again."""
        return next(group for group in range(len(self._records) + 1) if group not in self._records)

    def write_group(
        self, group: int, items: Sequence[StoredItem], batches: Sequence[FeatureBatch] = ()
    ) -> CommitRecord:
        """Write a group that is not committed yet, then commit it.

        If anything goes wrong before the commit, the group's chunks are taken away again and the store is as before.
        Memory: the coarse rows of the group and two chunks of fine rows, beside the arguments.

        Args:
            group: its number, see `next_group`.
            items: one per slot, in order, done or failed; at most ``spec.group_items``.
            batches: features of the done items in the same order, in any number of pieces.

        Raises:
            UserError: when the file system refuses.
            ValueError: for items and features that do not fit each other or the store.
        """
        if group < 0 or group in self._records:
            raise ValueError(f"group {group} is committed already or negative")
        spec = self.spec
        check_group(spec, items, batches)
        columns = group_columns(spec, items, batches)
        digest = contents_digest(content_of(i.id, i.text, i.labels) for i in items) if spec.has_text else None
        first_row, rows = group * spec.group_rows, 0
        try:
            # Whatever an earlier, uncommitted attempt left must not mingle with this one.
            self._remove_chunks(group)
            for name, values in columns.items():
                self._arrays.write(name, group * spec.group_items, values)
            if spec.has_fine:
                rows = self._arrays.write_pieces("fine", first_row, (stored_rows(spec, b.fine) for b in batches))
            size = self._arrays.sync(group)
            record = CommitRecord(
                group=group,
                items=len(items),
                done=sum(item.status == "done" for item in items),
                first_row=first_row,
                rows=rows,
                bytes=size,
                failed={slot: item.reason or "" for slot, item in enumerate(items) if item.status == "failed"},
                digest=digest,
            )
            write_record(self.path, record)
        except BaseException as error:
            # Also on Ctrl-C: the space of a group that was not committed is given back.
            if not record_path(self.path, group).exists():
                self._remove_chunks(group)
            if isinstance(error, OSError):
                raise write_error(self.path, error) from error
            raise
        self._records[group] = replace(record, failed={})
        return record

    def _remove_chunks(self, group: int) -> None:
        for path in self._arrays.group_chunks(group):
            path.unlink(missing_ok=True)
