"""The feature store: FeatureBatches in a Zarr v3 group that any Zarr reader understands.

The format is described in STORE_FORMAT.md. In short: every item has a slot, slots come in commit groups, a group is
written whole and then committed by one record; a group without its record does not exist.

Shape legend: N items, T fine rows of all items together, D embedding size.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from tai_engine.atomic import sync_directory, write_error
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.store.arrays import StoreArrays, create_arrays, open_group
from tai_engine.store.commits import CommitRecord, damaged_group, read_record, read_summaries, record_path, write_record
from tai_engine.store.id_set import IdSet
from tai_engine.store.spec import STATUS_DONE, STATUS_FAILED, STATUS_NAMES, StoredItem, StoreSpec

_UNKNOWN = -1  # size and modified_ns of an input that has none


class FeatureStore:
    """Features on disk: created or opened, filled a group at a time, read in bounded batches.

    One process writes a store at a time. Memory: about 500 bytes per group, plus what a call says.

    Attributes:
        path: its folder.
        spec: its identity and sizes.
        created: when it was made, ISO 8601 in UTC.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the store at ``path``.

        Raises:
            UserError: if there is none, it is cut short, or a newer version made it.
        """
        self.path = Path(path)
        group, attributes = open_group(self.path)
        self.spec = StoreSpec.from_attributes(attributes, path)
        self.created = str((attributes or {}).get("created", ""))
        self._arrays = StoreArrays(self.path, self.spec, group)
        self._records = read_summaries(self.path)

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
            UserError: as `open` and `create` do, or if the store there is of another kind, space or recipe.
        """
        if cls.is_free(path):
            return cls.create(path, spec)
        store = cls(path)
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

    def __len__(self) -> int:
        """Items of all committed groups, failed ones included."""
        return sum(record.items for record in self._records.values())

    def counts(self) -> dict[str, int]:
        """Committed items by status: ``done`` and ``failed``."""
        done = sum(record.done for record in self._records.values())
        return {"done": done, "failed": len(self) - done}

    def groups(self) -> list[int]:
        """Numbers of the committed groups, in order."""
        return sorted(self._records)

    def next_group(self) -> int:
        """The lowest number of no committed group: where the next one goes, or a damaged one is made again."""
        return next(group for group in range(len(self._records) + 1) if group not in self._records)

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

    def items(self, group: int) -> list[StoredItem]:
        """What became of the inputs of a committed group, in slot order.

        Raises:
            UserError: if there is no such group or it is damaged.
        """
        columns = [self._read_slots(group, name).tolist() for name in ("id", "status", "size", "modified_ns")]
        failed = read_record(self.path, group).failed
        items = []
        for slot, (name, status, size, modified_ns) in enumerate(zip(*columns, strict=True)):
            if status >= len(STATUS_NAMES):
                raise damaged_group(self.path, group, f"slot {slot} has the unknown status {status}")
            items.append(
                StoredItem(
                    id=name,
                    status=STATUS_NAMES[status],
                    reason=failed.get(slot),
                    size=None if size == _UNKNOWN else size,
                    modified_ns=None if modified_ns == _UNKNOWN else modified_ns,
                )
            )
        return items

    def ledger(self) -> Iterator[StoredItem]:
        """What became of every input, group by group; memory: the items of one group."""
        for group in self.groups():
            yield from self.items(group)

    def known_ids(self) -> IdSet:
        """Ids of all committed items, done or failed; memory: about 16 bytes each."""
        return IdSet(name for group in self.groups() for name in self._read_slots(group, "id").tolist())

    def read_group(self, group: int) -> FeatureBatch:
        """All done items of a committed group, rows as they are stored; memory: twice that group's rows.

        Raises:
            UserError: if there is no such group or it is damaged.
        """
        batches = list(self.iter_batches(self.spec.group_items, groups=[group]))
        return batches[0] if batches else self._empty()

    def iter_batches(
        self, batch_items: int = 256, *, with_fine: bool = True, groups: Iterable[int] | None = None
    ) -> Iterator[FeatureBatch]:
        """The done items in slot order, rows as they are stored.

        A batch has at most ``batch_items`` items and never spans two groups. Memory: twice the rows of a batch, and
        those of the chunks at its edges.

        Args:
            batch_items: best a multiple of ``spec.chunk_items``, so that no chunk is read twice.
            with_fine: False reads no fine rows (each batch then has none).
            groups: only these groups, in this order; by default all committed ones.

        Raises:
            UserError: for a group that is not there, or is damaged; it names the file.
        """
        if batch_items < 1:
            raise ValueError(f"batch_items is {batch_items}, expected 1 or more")
        with_fine = with_fine and self.spec.has_fine
        for group in self.groups() if groups is None else groups:
            record = self._record(group)
            ids = self._read_slots(group, "id").tolist()
            done_N = self._read_slots(group, "status") == STATUS_DONE
            counts_N = self._read_slots(group, "count").astype(np.int64)
            if (counts_N < 0).any() or counts_N.sum() != record.rows:
                what = f"its counts add up to {counts_N.sum()}, its record says {record.rows}"
                raise damaged_group(self.path, group, what)
            first_rows = record.first_row + np.concatenate([[0], counts_N.cumsum()])
            for start in range(0, record.items, batch_items):
                stop = min(start + batch_items, record.items)
                done, counts = done_N[start:stop], counts_N[start:stop]
                if not done.any():
                    continue
                slot = group * self.spec.group_items + start
                coarse_ND = self._read_done("coarse", slot, done)
                clip_ND = self._read_done("coarse_clip", slot, done) if self.spec.has_coarse_clip else None
                if with_fine:
                    rows_TD = self._arrays.read("fine", int(first_rows[start]), int(first_rows[stop]))
                    fine_TD = torch.from_numpy(rows_TD if done.all() else rows_TD[np.repeat(done, counts)])
                else:
                    fine_TD, counts = coarse_ND[:0], np.zeros_like(counts)
                try:
                    batch = FeatureBatch(
                        ids=tuple(np.array(ids[start:stop], dtype=object)[done]),
                        coarse=coarse_ND,
                        fine=fine_TD,
                        offsets=offsets_from_counts(torch.from_numpy(counts[done])),
                        space_key=self.spec.space_key,
                        coarse_clip=clip_ND,
                        check_fine=False,
                    )
                except ValueError as error:
                    raise damaged_group(self.path, group, str(error)) from error
                yield batch

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
        self._check_group(group, items, batches)
        spec = self.spec
        done = [slot for slot, item in enumerate(items) if item.status == "done"]
        counts_N = np.zeros(len(items), dtype=np.int32)
        counts_N[done] = [count for batch in batches for count in batch.counts.tolist()]
        status_N = np.full(len(items), STATUS_FAILED, dtype=np.uint8)
        status_N[done] = STATUS_DONE
        columns = {
            "id": np.array([item.id for item in items], dtype=np.dtypes.StringDType()),
            "status": status_N,
            "count": counts_N,
            "size": np.array([_UNKNOWN if i.size is None else i.size for i in items], dtype=np.int64),
            "modified_ns": np.array([_UNKNOWN if i.modified_ns is None else i.modified_ns for i in items], np.int64),
            "coarse": self._in_slots(len(items), done, [b.coarse for b in batches]),
        }
        if spec.has_coarse_clip:
            clip = [b.coarse_clip for b in batches if b.coarse_clip is not None]
            columns["coarse_clip"] = self._in_slots(len(items), done, clip)
        first_row, rows = group * spec.group_rows, 0
        try:
            # Whatever an earlier, uncommitted attempt left must not mingle with this one.
            self._remove_chunks(group)
            for name, values in columns.items():
                self._arrays.write(name, group * spec.group_items, values)
            if spec.has_fine:
                rows = self._arrays.write_pieces("fine", first_row, (self._rows(b.fine) for b in batches))
            size = self._arrays.sync(group)
            record = CommitRecord(
                group=group,
                items=len(items),
                done=len(done),
                first_row=first_row,
                rows=rows,
                bytes=size,
                failed={slot: item.reason or "" for slot, item in enumerate(items) if item.status == "failed"},
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

    def _check_group(self, group: int, items: Sequence[StoredItem], batches: Sequence[FeatureBatch]) -> None:
        spec = self.spec
        if group < 0 or group in self._records:
            raise ValueError(f"group {group} is committed already or negative")
        if not 0 < len(items) <= spec.group_items:
            raise ValueError(f"a group has 1 to {spec.group_items} items, not {len(items)}")
        if len({item.id for item in items}) != len(items):
            raise ValueError("ids are not unique within the group")
        if any(item.status not in ("done", "failed") for item in items):
            raise ValueError("items of a new group are done or failed")
        if [item.id for item in items if item.status == "done"] != [name for batch in batches for name in batch.ids]:
            raise ValueError("the features are not those of the done items, in their order")
        for batch in batches:
            if batch.space_key != spec.space_key:
                raise ValueError(f"features are of {batch.space_key!r}, the store of {spec.space_key!r}")
            if batch.dim != spec.dim or (batch.coarse_clip is not None) != spec.has_coarse_clip:
                raise ValueError(
                    f"features have dim {batch.dim} and coarse_clip {batch.coarse_clip is not None}, "
                    f"the store {spec.dim} and {spec.has_coarse_clip}"
                )
            if len(batch) and int(batch.counts.max()) > spec.rows_per_item_max:
                raise ValueError(
                    f"an item has {int(batch.counts.max())} fine rows, the store allows {spec.rows_per_item_max}"
                )

    def _record(self, group: int) -> CommitRecord:
        if group not in self._records:
            raise UserError(f"The store {self.path} has no group {group}; it has {len(self._records)} groups.")
        return self._records[group]

    def _read_slots(self, group: int, name: str) -> np.ndarray:
        """One entry per slot in use of a committed group."""
        first = group * self.spec.group_items
        return self._arrays.read(name, first, first + self._record(group).items)

    def _read_done(self, name: str, first: int, done: np.ndarray) -> torch.Tensor:
        rows = self._arrays.read(name, first, first + len(done))
        return torch.from_numpy(rows if done.all() else rows[done])

    def _empty(self) -> FeatureBatch:
        nothing = torch.empty(0, self.spec.dim, dtype=getattr(torch, self.spec.row_dtype))
        clip = nothing if self.spec.has_coarse_clip else None
        return FeatureBatch((), nothing, nothing, torch.zeros(1, dtype=torch.int64), self.spec.space_key, clip)

    def _rows(self, rows: torch.Tensor) -> np.ndarray:
        converted: np.ndarray = rows.detach().to("cpu", getattr(torch, self.spec.row_dtype)).numpy()
        return converted

    def _in_slots(self, items: int, done: list[int], pieces: Sequence[torch.Tensor]) -> np.ndarray:
        """[items, D]: the rows of the done slots, zeros in the others."""
        slots = np.zeros((items, self.spec.dim), dtype=self.spec.row_dtype)
        if done:
            slots[done] = np.concatenate([self._rows(piece) for piece in pieces])
        return slots

    def _remove_chunks(self, group: int) -> None:
        for path in self._arrays.group_chunks(group):
            path.unlink(missing_ok=True)
